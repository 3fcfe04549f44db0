"""What runs in the containers of tasks and triggers."""

"""Airflow's own user interface, which runs only while somebody looks."""

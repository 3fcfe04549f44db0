"""One tick of Airflow's scheduler and the gate in front of it."""

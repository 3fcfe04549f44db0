"""Airflow's Execution API, served in the process that uses it."""

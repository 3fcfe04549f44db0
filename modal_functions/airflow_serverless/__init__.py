"""What airflow-serverless runs on Modal.

`app` registers the Modal functions, `scheduler` is one tick of Airflow's scheduler, `executor` starts and runs
tasks, `db` and `xcom` store their data, `dags` parses DAG files, `state` is the contract of the shared Dict.
"""

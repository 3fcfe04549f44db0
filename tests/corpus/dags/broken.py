import a_module_that_nobody_has  # noqa: F401
from airflow.sdk import DAG

DAG("broken")

from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Connection, Variable, task

with DAG(
    "templates",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    user_defined_macros={"shout": lambda text: text.upper() + "!"},
    user_defined_filters={"twice": lambda text: text * 2},
    template_searchpath=None,
):
    BashOperator(
        task_id="dates",
        bash_command="echo '{{ ds }} {{ ts_nodash }} {{ macros.ds_add(ds, 2) }} {{ logical_date.year }}'",
    )
    BashOperator(
        task_id="names", bash_command="echo '{{ dag.dag_id }} {{ task.task_id }} {{ run_id }} {{ ti.map_index }}'"
    )
    BashOperator(task_id="own", bash_command="echo '{{ shout('ho') }} {{ 'na' | twice }}'")
    BashOperator(task_id="from_file", bash_command="scripts/greet.sh", params={"name": "file"})
    BashOperator(
        task_id="outside",
        bash_command="echo '{{ var.value.corpus_greeting }} {{ var.json.corpus_settings.rows[1] }} "
        "{{ var.value.get('corpus_absent', 'none') }} {{ conn.corpus_store.host }}'",
    )
    BashOperator(task_id="unknown", bash_command="echo {{ nobody.knows }}")
    BashOperator(task_id="no_variable", bash_command="echo {{ var.value.corpus_absent }}")

with DAG("environment", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def variables():
        return [
            Variable.get("corpus_greeting"),
            Variable.get("corpus_settings", deserialize_json=True),
            Variable.get("corpus_absent", default="none"),
        ]

    @task
    def connection():
        found = Connection.get("corpus_store")
        return [found.conn_type, found.host, found.port, found.schema, found.login, found.extra_dejson]

    @task
    def writes():
        Variable.set("corpus_written", {"by": "a task"}, serialize_json=True)
        return Variable.get("corpus_written", deserialize_json=True)

    @task
    def reads():
        return Variable.get("corpus_written", deserialize_json=True)

    @task
    def deletes():
        Variable.delete("corpus_written")
        return Variable.get("corpus_written", default="gone")

    @task
    def absent():
        return Variable.get("corpus_never")

    @task
    def no_connection():
        return Connection.get("corpus_never").host

    variables(), connection(), absent(), no_connection()
    writes() >> reads() >> deletes()

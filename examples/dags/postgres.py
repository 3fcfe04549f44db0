"""Read and write PostgreSQL through the Airflow connection `warehouse`. psycopg2 is part of what Airflow runs with."""

from airflow.sdk import Connection, dag, task


@dag(schedule=None, tags=["example"])
def postgres():
    @task
    def load(dag_run) -> int:
        day = dag_run.run_after.date()
        sales = [("apples", 12), ("pears", 7)]
        with connect() as database, database.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS sales (day date, item text, count int, PRIMARY KEY (day, item))")
            # A repeated run replaces what an earlier one has written.
            for item, count in sales:
                cursor.execute(
                    "INSERT INTO sales VALUES (%s, %s, %s)"
                    " ON CONFLICT (day, item) DO UPDATE SET count = excluded.count",
                    (day, item, count),
                )
        return len(sales)

    @task
    def report(loaded: int) -> None:
        with connect() as database, database.cursor() as cursor:
            cursor.execute("SELECT sum(count) FROM sales")
            print(f"{loaded} rows loaded, {cursor.fetchone()[0]} pieces sold")

    report(load())


def connect():
    import psycopg2

    return psycopg2.connect(Connection.get("warehouse").get_uri())


postgres()

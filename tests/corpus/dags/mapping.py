from datetime import datetime

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group

with DAG("mapping", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def numbers():
        return [1, 2, 3, 4]

    @task
    def pairs():
        return {"a": 1, "b": 2}

    @task
    def commands():
        return [{"bash_command": "echo one"}, {"bash_command": "echo two", "env": {"X": "1"}}]

    @task(map_index_template="{{ x }} and {{ y }}")
    def product(x, y):
        return x * y

    @task
    def square(x):
        if x == 3:
            raise AirflowSkipException("three is left out")
        return x * x

    @task
    def reduce(values):
        return sum(values)

    @task
    def items(pair):
        return list(pair)

    @task
    def zipped(pair):
        return pair

    found = numbers()
    reduce(square.expand(x=found))
    reduce.override(task_id="reduce_products")(product.expand(x=found, y=[10, 20]))
    items.expand(pair=pairs())
    BashOperator.partial(task_id="echo").expand_kwargs(commands())
    zipped.expand(pair=found.zip(numbers.override(task_id="letters")(), fillvalue=None))
    square.override(task_id="mapped_map").expand(x=found.map(lambda x: x + 10))
    zipped.override(task_id="concatenated").expand(pair=found.concat(numbers.override(task_id="others")()))
    product.partial(y=3).expand(x=[5])

with DAG("mapping_nothing", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def none():
        return []

    @task
    def each(x):
        return x

    @task
    def total(values):
        return len(list(values))

    mapped = each.expand(x=none())
    total.override(trigger_rule="all_done")(mapped)
    mapped >> EmptyOperator(task_id="strict")

with DAG("mapping_what_cannot_be", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def one():
        return 1

    @task
    def void():
        return None

    each.expand(x=one())
    each.override(task_id="of_none").expand(x=void())

with DAG("mapped_groups", schedule=None, start_date=datetime(2026, 1, 1)):

    @task_group
    def row(value):
        @task
        def double(x):
            return 2 * x

        @task
        def halve(x):
            if x == 4:
                raise ValueError("not this one")
            return x / 2

        return halve(double(value))

    @task
    def rows():
        return [1, 2, 3]

    @task(trigger_rule="all_done")
    def gather(values):
        return list(values)

    gather(row.expand(value=rows()))

with DAG("mapping_many", schedule=None, start_date=datetime(2026, 1, 1), max_active_tasks=64):

    @task
    def many():
        return list(range(200))

    @task
    def add(values):
        return sum(values)

    add(each.expand(x=many()))

"""Options, parameters, batches and concurrency: what a function's containers have to do with it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_modal import APPS, LocalModal, wait_until

NAMED = 'named = lambda name: modal.Function.from_name("pools", name)\n'


@pytest.fixture(scope="module")
def pools() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    deployed = server.deploy(APPS / "pool_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield server
    server.close()


def sdk(server: LocalModal, script: str) -> Any:
    return server.sdk(NAMED + textwrap.dedent(script))


def test_each_parameter_set_has_its_own_pool(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        Model = modal.Cls.from_name("pools", "Model")
        a, again, b = Model(name="a"), Model(size=3, name="a"), Model(name="b", size=4, big=True)
        calls = [model.call.remote() for model in (a, again, b)]
        errors = []
        for wrong in (dict(), dict(name=3), dict(name="x", color="red")):
            try:
                Model(**wrong).call.remote()
            except Exception as error:
                errors.append(type(error).__name__)
        answer([[call["who"] for call in calls], [call["calls"] for call in calls],
                calls[0]["pid"] == calls[1]["pid"], calls[0]["pid"] == calls[2]["pid"], a.other.remote(), errors])
    """,
    )
    assert found[:5] == [["a/3/False", "a/3/False", "b/4/True"], [1, 2, 1], True, False, 2]
    assert found[5] == ["InvalidError", "TypeError", "InvalidError"]


def test_each_option_set_has_its_own_pool(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        which = named("which")
        other = which.with_options(secrets=[modal.Secret.from_dict({"WHICH": "second"})], timeout=40, max_containers=1)
        Plain = modal.Cls.from_name("pools", "Plain")
        options = Plain.with_options(env={"WHICH": "third"})
        try:
            named("nap").with_options(timeout=1).remote(30)
        except modal.exception.FunctionTimeoutError:
            timeout = True
        found = [which.remote()[:2], other.remote()[:2], other.remote()[:2]]
        answer([*found, Plain().pid.remote(), options().pid.remote(), timeout])
    """,
    )
    base, other, again, plain, options, timeout = found
    assert (base[0], other[0], plain[1], options[1], timeout) == ("first", "second", "none", "third", True)
    assert other == again
    assert other[1] != base[1]
    assert options[0] != plain[0]


def test_bound_functions_are_updated_with_their_base(pools: LocalModal) -> None:
    script = """
        other = named("which").with_options(timeout=50)
        named("which").hydrate(), other.hydrate()
        answer([other.object_id, other.remote()[2]])
    """
    bound_id, version = sdk(pools, script)
    assert version == 1
    assert pools.modal("deploy", APPS / "pool_app.py", POOL_VERSION="2").returncode == 0
    assert sdk(pools, script) == [bound_id, 2]
    pools.stop()
    pools.start()
    assert sdk(pools, script) == [bound_id, 2]
    assert wait_until(lambda: sdk(pools, 'answer(modal.Dict.from_name("pool-notes").get("exit-a"))'), "@exit") == 2


def test_inputs_share_containers_up_to_their_limits(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        crowd = named("crowd")
        two = [call.get(timeout=60) for call in [crowd.spawn("two", 2) for _ in range(2)]]
        six = [call.get(timeout=60) for call in [crowd.spawn("six", 6) for _ in range(6)]]
        # With one container, there is no other way than to go beyond the target.
        one = crowd.with_options(max_containers=1)
        full = [call.get(timeout=60) for call in [one.spawn("full", 6) for _ in range(6)]]
        alone = named("meet").with_concurrency(max_inputs=3).with_options(max_containers=1)
        three = [call.get(timeout=60) for call in [alone.spawn() for _ in range(3)]]
        answer([len(set(two)), len(set(six)), len(set(full)), len(set(three))])
    """,
    )
    two, six, full, three = found
    assert (two, full, three) == (1, 1, 1)
    assert six == 3


def test_batches_run_when_full_or_after_the_wait_time(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        batch = named("batch")
        batch.remote(0)
        begin = time.monotonic()
        eight = list(batch.map(range(8)))
        full = time.monotonic() - begin
        begin = time.monotonic()
        few = [call.get(timeout=30) for call in [batch.spawn(n) for n in (7, 8)]]
        partial = time.monotonic() - begin
        calls = [batch.spawn(n) for n in (1, -1)]
        errors = []
        for call in calls:
            try:
                call.get(timeout=30)
            except ValueError as error:
                errors.append(str(error))
        method = modal.Cls.from_name("pools", "Together")().together
        values = sorted(value for batch in {tuple(batch) for batch in eight} for value in batch)
        answer([values, {len(batch) for batch in eight} == {4}, full, few, partial, errors, list(method.map(range(3)))])
    """,
    )
    values, fours, full, few, partial, errors, method = found
    assert (values, fours) == (list(range(8)), True)
    assert full < 2.0, "a full batch does not wait"
    assert [sorted(result) for result in few] == [[7, 8], [7, 8]]
    assert partial >= 1.9
    assert errors == ["minus one"] * 2
    assert method == [3, 3, 3]


def test_autoscaler_settings_can_be_updated(pools: LocalModal) -> None:
    begin = sdk(
        pools,
        """
        nap = named("nap")
        before = nap.autoscaler.settings()
        after = nap.autoscaler.update(min_containers=2, scaledown_window=2)
        answer([before.min_containers, after.min_containers, nap.autoscaler.settings().scaledown_window])
    """,
    )
    assert begin == [None, 2, 2]
    stats = "answer(vars_of(named('nap').get_current_stats()))"
    script = "vars_of = lambda s: [s.backlog, s.num_total_runners, s.num_running_inputs, s.input_headroom]\n" + stats
    wait_until(lambda: sdk(pools, script) == [0, 2, 0, 2], "two containers that wait for work")
    buffered = sdk(
        pools,
        """
        nap = named("nap")
        nap.autoscaler.update(min_containers=0, buffer_containers=1, max_containers=3)
        call = nap.spawn(6)
        until = time.monotonic() + 30
        while nap.get_current_stats().num_running_inputs == 0 or nap.get_current_stats().num_total_runners != 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        held = nap.get_current_stats().num_total_runners
        time.sleep(3)
        held = min(held, nap.get_current_stats().num_total_runners)
        call.get()
        try:
            nap.autoscaler.update(min_containers=5)
        except modal.exception.InvalidError as error:
            answer([held, str(error)])
    """,
    )
    assert buffered[0] == 2, "one that works, and one in reserve for longer than the window"
    assert "max_containers" in buffered[1]
    wait_until(lambda: sdk(pools, script)[1] == 0, "idle containers to go")
    assert pools.deploy(APPS / "pool_app.py").returncode == 0
    assert sdk(pools, "answer(named('nap').autoscaler.settings().max_containers)") is None


def test_call_graph_has_parents_and_children(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        call = named("root").spawn(5)
        total = call.get()
        tree = lambda node: [node.function_name, node.status.name, sorted(tree(child) for child in node.children)]
        again = modal.FunctionCall.from_id(call.object_id)
        answer([total, [tree(node) for node in again.get_call_graph()], again.num_inputs()])
    """,
    )
    leaf = ["leaf", "SUCCESS", []]
    assert found == [
        6 + 7 + 1 + 2 + 3,
        [["root", "SUCCESS", [["branch", "SUCCESS", [leaf, leaf]], leaf, leaf, leaf]]],
        1,
    ]


def test_map_variants_return_all_results(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        leaf = named("leaf")
        mixed = list(leaf.map([1, "x", 3], return_exceptions=True))
        many = list(leaf.map(range(2_000)))
        unordered = sorted(leaf.map(range(50), order_outputs=False))
        leaf.spawn_map(range(3))
        call = leaf.experimental_spawn_map(range(700))
        leaf.for_each(range(3))
        answer([[repr(m) if isinstance(m, Exception) else m for m in mixed], many == list(range(1, 2_001)),
                unordered == list(range(1, 51)), list(leaf.starmap([(1,), (2,)])), call.num_inputs(),
                list(call.iter(start=690)), call.get(index=3)])
    """,
    )
    mixed, *rest = found
    assert (mixed[0], mixed[2]) == (2, 4)
    assert mixed[1].startswith("TypeError")
    assert rest == [True, True, [2, 3], 700, list(range(691, 701)), 4]


def test_unpicklable_result_fails_and_poll_times_out(pools: LocalModal) -> None:
    found = sdk(
        pools,
        """
        try:
            named("unpicklable").remote()
        except Exception as error:
            unpicklable = str(error)
        call = named("nap").spawn(3)
        try:
            call.get(timeout=0)
        except TimeoutError:
            polled = True
        info = named("leaf").info(refresh=True)
        from_id = modal.Function.from_id(named("leaf").hydrate().object_id)
        answer([unpicklable, polled, call.get() > 0, from_id.remote(1)])
    """,
    )
    assert "pickle" in found[0]
    assert found[1:] == [True, True, 2]


@pytest.mark.parametrize("with_container", [False, True])
def test_canceled_calls_raise_remote_error(pools: LocalModal, with_container: bool) -> None:
    marker = f"sleepy-{with_container}"
    found = sdk(
        pools,
        f"""
        notes = modal.Dict.from_name("pool-notes", create_if_missing=True)
        running, waiting = [named("sleepy").spawn("{marker}") for _ in range(2)]
        until = time.monotonic() + 60
        while notes.get("{marker}") != "running":
            assert time.monotonic() < until
            time.sleep(0.05)
        ends = []
        for call in (waiting, running):
            call.cancel(terminate_containers={with_container})
            try:
                call.get(timeout=30)
            except Exception as error:
                ends.append(type(error).__name__)
        answer([ends, notes.get("{marker}")])
    """,
    )
    assert found[0] == ["RemoteError"] * 2
    if not with_container:
        assert found[1] == "cancelled"


def test_run_accepts_entrypoint_parameters(pools: LocalModal) -> None:
    done = pools.modal("run", f"{APPS / 'pool_app.py'}::main", "--word", "ab", "--times", "3")
    assert done.returncode == 0, done.stderr
    assert "entry ababab 4" in done.stdout
    done = pools.modal("run", "--detach", f"{APPS / 'pool_app.py'}::main", "--word", "cd")
    assert done.returncode == 0, done.stderr
    assert "entry cdcd 3" in done.stdout


def test_detached_app_ends_after_its_calls(pools: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("""
import time
import modal
app = modal.App("later")
notes = modal.Dict.from_name("pool-notes", create_if_missing=True)

@app.function()
def finish(marker):
    while not notes.get("go-" + marker):
        time.sleep(0.05)
    notes[marker] = "finished"

@app.local_entrypoint()
def main():
    finish.spawn("later")
""")
    # The client would wait for the end of the logs.
    done = pools.modal("run", "--detach", tmp_path / "later.py", MODAL_LOGS_TIMEOUT="1")
    assert done.returncode == 0, done.stderr
    notes = 'notes = modal.Dict.from_name("pool-notes")\n'
    sdk(pools, notes + 'notes["go-later"] = True')
    assert wait_until(lambda: sdk(pools, notes + 'answer(notes.get("later"))'), "the call to go on") == "finished"

    def states() -> list[str]:
        listed = json.loads(pools.modal("app", "list", "--json").stdout)
        return [app["state"] for app in listed if app["description"] == "later"]

    wait_until(lambda: states() in ([], ["stopped"]), "the app to end")


def test_gpus_are_refused_unless_they_are_ignored(local_modal: LocalModal) -> None:
    script = """
        app = modal.App("gpu")
        @app.function(gpu="H100", serialized=True, cpu=2, memory=512, region="mars", cloud="aws")
        def f():
            return 1
        with app.run():
            answer(f.remote())
    """
    with pytest.raises(AssertionError, match="--ignore-gpu"):
        local_modal.sdk(script)
    local_modal.stop()
    local_modal.start("--ignore-gpu")
    assert local_modal.sdk(script) == 1


def test_custom_domains_are_refused(local_modal: LocalModal) -> None:
    with pytest.raises(AssertionError, match="cannot lead to this machine"):
        local_modal.sdk("""
            app = modal.App("domain")
            @app.function(serialized=True)
            @modal.fastapi_endpoint(custom_domains=["app.example.com"])
            def f():
                return 1
            with app.run():
                pass
        """)

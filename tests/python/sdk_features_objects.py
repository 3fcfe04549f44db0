"""Rows of the features with which deployed apps and stored objects are used, and of the command line."""

from __future__ import annotations

from sdk_features import ignored, refused, works

APPS, CALLS, STORES, SANDBOXES, OTHERS, COMMANDS = "Apps", "Calls", "Objects", "Sandboxes", "Others", "Command line"
ADD = "@app.function()\ndef add(a, b=1): return a + b"
COUNT = "@app.function()\ndef count(n):\n print('counting')\n yield from range(n)"

ROWS = [
    works(
        APPS,
        "App, App.run, App.function, App.cls, App.name, App.app_id, App.description, App.registered_functions,"
        " App.registered_classes, App.registered_entrypoints, App.registered_web_endpoints",
        'app = modal.App("features-run")\n'
        "app.function(serialized=True, name='double')(lambda n: 2 * n)\n"
        "with app.run(): return [app.registered_functions['double'].remote(4), app.app_id[:3], app.name]",
        [8, "ap-", "features-run"],
    ),
    works(
        APPS,
        "App.deploy, App.stop, App.info, App.include",
        'app, other = modal.App("features-deploy"), modal.App("features-other")\n'
        "other.function(serialized=True, name='double')(lambda n: 2 * n)\n"
        "app.include(other).deploy()\n"
        'found = modal.Function.from_name("features-deploy", "double").remote(4)\n'
        "app.stop()\n"
        'return [found, failure(modal.Function.from_name("features-deploy", "double").hydrate)]',
        [8, "NotFoundError"],
    ),
    works(APPS, "App.lookup, App.get_tags", 'modal.App.lookup("features").get_tags()', {"kind": "test"}),
    works(
        APPS,
        "App.set_tags",
        'app = modal.App.lookup("features-tags", create_if_missing=True); app.set_tags({"a": "b"}); '
        "return app.get_tags()",
        {"a": "b"},
    ),
    works(
        APPS,
        "App.logs, enable_output",
        '[*f("count").remote_gen(1)]\n'
        'logs = modal.App.lookup("features").logs\n'
        'return until(lambda: any("counting" in entry.message for entry in logs.tail(1000)))',
    ),
    refused(
        APPS,
        "App.sandboxes",
        "SandboxGetTimeRangeStats",
        "now = time.time() - 60\n"
        "since = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)\n"
        'return [*modal.App.lookup("features").sandboxes.stats(since=since)]',
    ),
    refused(APPS, "App.stats", "AppGetTimeRangeStats", 'modal.App.lookup("features").stats()'),
    works(CALLS, "Function, Function.from_name, Function.remote", 'f("add").remote(1, b=2)', 3, ADD),
    works(
        CALLS,
        "App.local_entrypoint, Function.local",
        command=("run", "small_app.py::main"),
        seen="locally 3",
    ),
    works(CALLS, "Function.remote_gen", '[*f("count").remote_gen(3)]', [0, 1, 2], COUNT),
    works(
        CALLS,
        "Function.map, Function.starmap, Function.for_each",
        '[[*f("add").map([1, 2])], [*f("add").starmap([(1, 2), (3, 4)])], f("add").for_each([1])]',
        [[2, 3], [3, 7], None],
    ),
    works(
        CALLS,
        "Function.spawn, FunctionCall, FunctionCall.get, FunctionCall.from_id, FunctionCall.object_id,"
        " FunctionCall.num_inputs, FunctionCall.gather, FunctionCall.hydrate, FunctionCall.client",
        'call = f("add").spawn(1)\n'
        "again = modal.FunctionCall.from_id(call.object_id)\n"
        "return [again.get(), again.num_inputs(), modal.FunctionCall.gather(call, again)]",
        [2, 1, [2, 2]],
    ),
    works(CALLS, "FunctionCall.iter", '[*f("add").experimental_spawn_map([1, 2]).iter()]', [2, 3]),
    works(
        CALLS,
        "Function.spawn_map, Function.experimental_spawn_map",
        'f("add").spawn_map([1, 2]); return f("add").experimental_spawn_map([1, 2]).num_inputs()',
        2,
    ),
    works(
        CALLS,
        "FunctionCall.cancel",
        'call = f("buffered").spawn(); call.cancel(); return failure(call.get) in ("InputCancellation", "RemoteError")',
    ),
    works(CALLS, "FunctionCall.get_call_graph", 'f("add").spawn(1).get_call_graph()[0].function_name', "add"),
    works(
        CALLS,
        "Function.get_web_url, Function.hydrate, Function.object_id, Function.from_id, Function.info, Function.app,"
        " Function.client",
        'add = f("add").hydrate()\n'
        "return [add.get_web_url(), modal.Function.from_id(add.object_id).remote(1), add.info().timeout]",
        ["", 2, 300],
    ),
    works(
        CALLS,
        "Function.autoscaler, Function.update_autoscaler, Function.get_current_stats",
        'f("add").autoscaler.update(max_containers=3)\n'
        'return [f("add").autoscaler.settings().max_containers, f("add").get_current_stats().backlog]',
        [3, 0],
    ),
    works(
        CALLS,
        "Function.with_options, Function.with_concurrency, Function.with_batching",
        'failure(f("buffered").with_options(timeout=1).remote)',
        "FunctionTimeoutError",
    ),
    works(
        CALLS,
        "Function.logs, FunctionCall.logs",
        '[*f("count").remote_gen(1)]; return bool(until(lambda: [*f("count").logs.tail(9)]))',
    ),
    refused(CALLS, "Function.stats", "FunctionGetTimeRangeStats", 'f("add").stats()'),
    refused(CALLS, "Function.metrics", "MetricsGetInfo", 'f("add").metrics.schema()'),
    works(
        CALLS,
        "Cls.from_name, Cls.with_options, Cls.with_concurrency, Cls.with_batching, Cls.hydrate, Cls.object_id, "
        "Cls.client",
        'c("Whole").with_options(scaledown_window=2)(n=5).f.remote(2)',
        10,
    ),
    ignored(
        CALLS,
        "App.get_dashboard_url, Function.get_dashboard_url, FunctionCall.get_dashboard_url, Cls.get_dashboard_url,"
        " Image.get_dashboard_url, Volume.get_dashboard_url, Dict.get_dashboard_url, Queue.get_dashboard_url,"
        " Secret.get_dashboard_url, Environment.get_dashboard_url, Workspace.get_dashboard_url",
        "the SDK names a page of Modal's, where there is nothing",
        'f("add").hydrate().get_dashboard_url().startswith("https://modal.com/")',
    ),
    works(
        STORES,
        "Volume.from_name, Volume.batch_upload, Volume.listdir, Volume.iterdir, Volume.read_file, Volume.copy_files,"
        " Volume.remove_file, Volume.read_file_into_fileobj",
        """
        import io
        volume = modal.Volume.from_name("features-files", create_if_missing=True)
        with volume.batch_upload() as batch: batch.put_file(io.BytesIO(b"one"), "/one")
        volume.copy_files(["/one"], "/two")
        volume.remove_file("/one")
        return [[entry.path for entry in volume.listdir("/")], b"".join(volume.read_file("two")).decode()]
        """,
        [["two"], "one"],
    ),
    works(
        STORES,
        "Volume.commit, Volume.reload, Volume.read_only, Volume.with_mount_options",
        'f("volume_writer").remote(); return [f("volume_reader").remote(), '
        'failure(f("volume_reader").remote) in ("OSError", "PermissionError")]',
        ["new", True],
        "shared = modal.Volume.from_name('features-shared', create_if_missing=True)\n"
        "@app.function(volumes={'/s': shared})\ndef volume_writer():\n"
        " pathlib.Path('/s/a').write_text('new')\n shared.commit()\n"
        "@app.function(volumes={'/s': shared.read_only()})\ndef volume_reader():\n"
        " if 'read' in notes: pathlib.Path('/s/a').write_text('by a reader')\n"
        " notes['read'] = True\n shared.reload()\n return pathlib.Path('/s/a').read_text()",
    ),
    works(
        STORES,
        "Volume.ephemeral, Volume.from_id, Volume.rename, Volume.info, Volume.name, Volume.objects, Volume.hydrate,"
        " Volume.object_id, Volume.client",
        """
        with modal.Volume.ephemeral() as volume: found = [volume.object_id[:3]]
        modal.Volume.objects.create("features-old", allow_existing=True)
        modal.Volume.rename("features-old", "features-new")
        names = [volume.name for volume in modal.Volume.objects.list()]
        return [*found, "features-new" in names, "features-old" in names]
        """,
        ["vo-", True, False],
    ),
    works(
        STORES,
        "Dict, Dict.from_name, Dict.put, Dict.get, Dict.pop, Dict.update, Dict.contains, Dict.len, Dict.clear, "
        "Dict.keys,"
        " Dict.values, Dict.items, Dict.ephemeral, Dict.from_id, Dict.info, Dict.name, Dict.objects, Dict.hydrate,"
        " Dict.object_id, Dict.client",
        """
        with modal.Dict.ephemeral() as store:
            store.put("a", 1)
            store.update(b=2, c=3)
            found = [store.get("a"), store.pop("b"), store.contains("b"), store.len(), sorted(store.items())]
            store.clear()
            found += [[*store.keys()], [*store.values()]]
        return [*found, "features-notes" in [stored.name for stored in modal.Dict.objects.list()]]
        """,
        [1, 2, False, 2, [["a", 1], ["c", 3]], [], [], True],
    ),
    works(
        STORES,
        "Queue, Queue.from_name, Queue.put, Queue.put_many, Queue.get, Queue.get_many, Queue.len, Queue.clear,"
        " Queue.iterate, Queue.ephemeral, Queue.from_id, Queue.info, Queue.name, Queue.objects, Queue.hydrate,"
        " Queue.object_id, Queue.client, Queue.validate_partition_key",
        """
        with modal.Queue.ephemeral() as queue:
            queue.put(1)
            queue.put_many([2, 3], partition="p")
            found = [queue.get(), queue.len(partition="p"), [*queue.iterate(partition="p")]]
            found += [queue.get_many(2, partition="p")]
            queue.clear(all=True)
            return [*found, queue.len(total=True)]
        """,
        [1, 2, [2, 3], [2, 3], 0],
    ),
    works(
        STORES,
        "Secret.from_name, Secret.from_dict, Secret.from_dotenv, Secret.from_local_environ, Secret.update, Secret.info,"
        " Secret.name, Secret.objects, Secret.hydrate, Secret.object_id, Secret.client",
        """
        modal.Secret.objects.create("features-secret", {"A": "b"}, allow_existing=True)
        names = [secret.name for secret in modal.Secret.objects.list()]
        return ["features-secret" in names, modal.Secret.from_name("features-secret").hydrate().object_id[:3]]
        """,
        [True, "st-"],
    ),
    refused(
        SANDBOXES,
        "Sandbox, SandboxSnapshot, Probe, Tunnel",
        "Local Modal does not implement",
        'modal.Sandbox.create("true", app=modal.App.lookup("features-box", create_if_missing=True))',
    ),
    refused(
        OTHERS,
        "forward",
        "TunnelStart",
        'f("tunnel").remote()',
        code="@app.function()\ndef tunnel():\n with modal.forward(8000): pass",
    ),
    works(
        OTHERS,
        "Environment, Environment.from_context, Environment.from_name, Environment.hydrate, Environment.name,"
        " Environment.object_id, Environment.client, Environment.objects",
        """
        modal.Environment.objects.create("features-env")
        names = [environment.name for environment in modal.Environment.objects.list()]
        return [modal.Environment.from_context().hydrate().name, "features-env" in names]
        """,
        ["main", True],
    ),
    works(
        OTHERS,
        "Environment.apps",
        '"features" in [app.name for app in modal.Environment.from_name("main").apps.list()]',
    ),
    *(
        refused(OTHERS, f"Environment.{name}", rpc, f'modal.Environment.from_name("main").{name}.{call}')
        for name, rpc, call in [
            ("members", "Environment", "list()"),
            ("roles", "EnvironmentGetRoles", "list()"),
            ("billing", "EnvironmentBillingSummary", "summary()"),
        ]
    ),
    works(
        OTHERS,
        "Workspace, Workspace.from_context, Workspace.hydrate, Workspace.name, Workspace.object_id, Workspace.client,"
        " Workspace.proxy_tokens, Client",
        """
        workspace = modal.Workspace.from_context().hydrate()
        token = workspace.proxy_tokens.create(name="features")
        return [workspace.name, "features" in [token.name for token in workspace.proxy_tokens.list()]]
        """,
        ["local", True],
    ),
    *(
        refused(OTHERS, f"Workspace.{name}", rpc, f"modal.Workspace.from_context().hydrate().{name}.{call}")
        for name, rpc, call in [
            ("members", "WorkspaceMembersList", "list()"),
            ("member_tokens", "TokensList", "list()"),
            ("service_users", "ServiceUserList", "list()"),
            ("settings", "WorkspaceSettings", "list()"),
            ("billing", "WorkspaceBillingRates", "rates()"),
        ]
    ),
    refused(
        OTHERS,
        "billing",
        "WorkspaceBillingReport",
        "modal.billing.workspace_billing_report(start=datetime.datetime(2026, 1, 1))",
    ),
    works(
        OTHERS,
        "Error, types",
        'issubclass(modal.exception.NotFoundError, modal.Error) and f("add").info().timeout == 300',
    ),
    refused(
        OTHERS,
        "interact",
        "FunctionStartPtyShell",
        command=("run", "-i", "small_app.py::talk"),
    ),
    works(COMMANDS, "modal run", command=("run", "small_app.py::add", "--a", "4"), seen="App completed"),
    works(COMMANDS, "modal deploy", command=("deploy", "small_app.py"), seen="App deployed"),
    works(COMMANDS, "modal serve", command=("serve", "--timeout", "1", "small_app.py"), seen="Serving"),
    works(COMMANDS, "modal app", command=("app", "list"), seen="features"),
    works(COMMANDS, "modal container", command=("container", "list"), seen="Active Containers"),
    works(COMMANDS, "modal function", command=("function", "info", "features/add"), seen="Function Name: add"),
    works(COMMANDS, "modal server", command=("server", "info", "features/Served"), seen="Served"),
    works(COMMANDS, "modal dict", command=("dict", "list"), seen="features-notes"),
    works(COMMANDS, "modal queue", command=("queue", "list"), seen="Partitions"),
    works(COMMANDS, "modal secret", command=("secret", "list"), seen="features-secret"),
    works(COMMANDS, "modal volume", command=("volume", "list"), seen="features-files"),
    works(COMMANDS, "modal environment", command=("environment", "list"), seen="features-env"),
    works(COMMANDS, "modal workspace", command=("workspace", "proxy-tokens", "list"), seen="features"),
    works(
        COMMANDS, "modal token", command=("token", "info"), seen="local", note="`info`; there is nobody to log in to"
    ),
    works(
        COMMANDS,
        "modal config, modal profile, modal skills, modal setup, modal changelog, modal dashboard",
        command=("config", "show"),
        seen="token_id",
        note="do not ask the server",
    ),
    refused(COMMANDS, "modal shell", "Sandboxes", command=("shell", "small_app.py::add", "--cmd", "true")),
    refused(COMMANDS, "modal curl", "CurlGetAuthToken", command=("curl", "https://a--b.us-east.modal.direct")),
    refused(COMMANDS, "modal endpoint", "EndpointList", command=("endpoint", "list")),
    refused(COMMANDS, "modal image", "ImageListTags", command=("image", "names", "list")),
    refused(COMMANDS, "modal billing", "WorkspaceBilling", command=("billing", "rates")),
]

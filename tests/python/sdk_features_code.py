"""Rows of the features with which an app is written: parameters, decorators, servers."""

from __future__ import annotations

from sdk_features import ignored, refused, refused_code, removed, works

PARAMETERS, DECORATORS, SERVERS = "Parameters", "Decorators and helpers", "Servers"
HANDLER = """
import http.server
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while self.path == "/hold" and "released" not in notes: time.sleep(0.1)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
"""


ROWS = [
    works(
        PARAMETERS,
        "image=",
        'f("image").remote()',
        "of the image",
        '@app.function(image=base.env({"A": "of the image"}))\ndef image(): return os.environ["A"]',
    ),
    works(
        PARAMETERS, "env=", 'f("env").remote()', "b", '@app.function(env={"B": "b"})\ndef env(): return os.environ["B"]'
    ),
    works(
        PARAMETERS,
        "secrets=, Secret",
        'f("secrets").remote()',
        "c",
        '@app.function(secrets=[modal.Secret.from_dict({"C": "c"})])\ndef secrets(): return os.environ["C"]',
    ),
    works(
        PARAMETERS,
        "volumes=, Volume",
        'f("volumes").remote(); return b"".join(modal.Volume.from_name("features").read_file("a")).decode()',
        "written",
        'volume = modal.Volume.from_name("features", create_if_missing=True)\n'
        '@app.function(volumes={"/features": volume})\n'
        'def volumes():\n pathlib.Path("/features/a").write_text("written")\n volume.commit()',
    ),
    refused_code(
        PARAMETERS,
        "CloudBucketMount",
        "CloudBucketMount",
        '@app.function(serialized=True, volumes={"/b": modal.CloudBucketMount("b")})\ndef f(): pass',
    ),
    refused_code(
        PARAMETERS,
        "network_file_systems=, NetworkFileSystem",
        "SharedVolume",
        'files = modal.NetworkFileSystem.from_name("n", create_if_missing=True)\n'
        '@app.function(serialized=True, network_file_systems={"/n": files})\ndef f(): pass',
    ),
    refused_code(
        PARAMETERS,
        "gpu=",
        "--ignore-gpu",
        '@app.function(serialized=True, gpu="T4")\ndef f(): pass',
        "ignored with `--ignore-gpu`",
    ),
    ignored(
        PARAMETERS,
        "cpu=",
        "containers share the processors of this machine",
        'f("cpu").remote() == len(os.sched_getaffinity(0))',
        True,
        "@app.function(cpu=(0.1, 0.2))\ndef cpu(): return len(os.sched_getaffinity(0))",
    ),
    works(
        PARAMETERS,
        "memory=",
        'f("memory").remote()',
        "the first container was ended",
        "@app.function(memory=(64, 200))\ndef memory():\n"
        ' if "memory" in notes: return "the first container was ended"\n'
        ' notes["memory"] = True\n filled = bytearray(b"x") * (300 << 20)\n time.sleep(60)\n return len(filled)',
        note="the limit; a request makes no difference",
    ),
    ignored(
        PARAMETERS,
        "ephemeral_disk=",
        "containers share the disks of this machine",
        'f("disk").remote()',
        1,
        "@app.function(ephemeral_disk=524288)\ndef disk(): return 1",
    ),
    works(
        PARAMETERS,
        "min_containers=",
        'until(lambda: f("kept").get_current_stats().num_total_runners)',
        1,
        "@app.function(min_containers=1)\ndef kept(): return 1",
        note="one for a web server or a server, whose port there is once",
    ),
    works(
        PARAMETERS,
        "max_containers=",
        'len(set(f("limited").map(range(3))))',
        1,
        '@app.function(max_containers=1)\ndef limited(n):\n time.sleep(0.1)\n return os.environ["MODAL_TASK_ID"]',
    ),
    works(
        PARAMETERS,
        "buffer_containers=",
        'call = f("buffered").spawn(); '
        'found = until(lambda: f("buffered").get_current_stats().num_total_runners == 2)\n'
        "call.cancel(terminate_containers=True); return found",
        True,
        "@app.function(buffer_containers=1)\ndef buffered(): time.sleep(60)",
    ),
    works(
        PARAMETERS,
        "scaledown_window=",
        'f("scaled").remote(); return until(lambda: f("scaled").get_current_stats().num_total_runners == 0)',
        True,
        "@app.function(scaledown_window=2)\ndef scaled(): return 1",
    ),
    refused_code(
        PARAMETERS,
        "proxy=, Proxy",
        "Proxy",
        '@app.function(serialized=True, proxy=modal.Proxy.from_name("p"))\ndef f(): pass',
    ),
    works(
        PARAMETERS,
        "retries=, Retries",
        'f("retried").remote()',
        "again",
        "@app.function(retries=modal.Retries(max_retries=1, initial_delay=0.0))\ndef retried():\n"
        ' if "retried" in notes: return "again"\n notes["retried"] = True\n raise ValueError("once")',
    ),
    works(
        PARAMETERS,
        "timeout=",
        'failure(f("timeout").remote)',
        "FunctionTimeoutError",
        "@app.function(timeout=1)\ndef timeout(): time.sleep(60)",
    ),
    works(
        PARAMETERS,
        "startup_timeout=",
        'try: c("StartsLate")().f.remote()\nexcept Exception as error: return "may take to start" in str(error)',
        True,
        "@app.cls(startup_timeout=1)\nclass StartsLate:\n @modal.enter()\n def wait(self): time.sleep(60)\n"
        " @modal.method()\n def f(self): return 1",
    ),
    works(PARAMETERS, "name=", 'f("another").remote()', 1, '@app.function(name="another")\ndef named(): return 1'),
    works(
        PARAMETERS,
        "is_generator=",
        'list(f("generator").remote_gen())',
        [1, 2],
        "@app.function(is_generator=True)\ndef generator(): return (n for n in [1, 2])",
    ),
    works(
        PARAMETERS,
        "serialized=",
        'f("inner").remote()',
        7,
        "def outer(n):\n @app.function(serialized=True, name='inner')\n def inner(): return n\nouter(7)",
    ),
    works(
        PARAMETERS,
        "schedule=, Period, Cron",
        'until(lambda: note("scheduled")) and f("at_night").info().schedule',
        "Cron('0 3 * * *', UTC)",
        '@app.function(schedule=modal.Period(seconds=2))\ndef scheduled(): notes["scheduled"] = True\n'
        '@app.function(schedule=modal.Cron("0 3 * * *"))\ndef at_night(): pass',
    ),
    works(
        PARAMETERS,
        "enable_memory_snapshot=",
        'c("Remembers")().f.remote()',
        [True, True],
        "@app.cls(enable_memory_snapshot=True)\nclass Remembers:\n @modal.enter(snap=True)\n"
        " def first(self): self.a = True\n"
        " @modal.enter(snap=False)\n def then(self): self.b = True\n @modal.method()\n"
        " def f(self): return [self.a, self.b]",
        note="of what the module imports; `enter` runs in each container",
    ),
    works(
        PARAMETERS,
        "single_use_containers=, max_inputs=",
        'len({f("single").remote(), f("single").remote()})',
        2,
        '@app.function(single_use_containers=True)\ndef single(): return os.environ["MODAL_TASK_ID"]',
    ),
    works(
        PARAMETERS,
        "include_source=",
        'f("sourceless").remote()',
        False,
        "def without_source():\n @app.function(include_source=False, serialized=True, name='sourceless')\n"
        " def sourceless():\n"
        '  import importlib.util\n  return importlib.util.find_spec("features_app") is not None\nwithout_source()',
    ),
    ignored(
        PARAMETERS,
        "cloud=, region=, nonpreemptible=, routing_region=, SchedulerPlacement",
        "there is one machine",
        'f("placed").remote()',
        1,
        '@app.function(cloud="aws", region="us-east", nonpreemptible=True, routing_region="us-east")\n'
        "def placed(): return 1",
    ),
    ignored(
        PARAMETERS,
        "experimental_options=",
        "no option is known",
        'f("optional").remote()',
        1,
        '@app.function(experimental_options={"a": "b"})\ndef optional(): return 1',
    ),
    refused_code(
        PARAMETERS,
        "block_network=",
        "block_network",
        "@app.function(serialized=True, block_network=True)\ndef f(): pass",
    ),
    refused_code(
        PARAMETERS,
        "restrict_modal_access=",
        "restrict_modal_access",
        "@app.function(serialized=True, restrict_modal_access=True)\ndef f(): pass",
    ),
    refused_code(PARAMETERS, "i6pn=", "i6pn", "@app.function(serialized=True, i6pn=True)\ndef f(): pass"),
    works(
        DECORATORS,
        "method, enter, exit, parameter, Cls",
        'found = c("Whole")(n=3).f.remote(4); return [found, until(lambda: note("exited"))]',
        [12, 3],
        "@app.cls(scaledown_window=2)\nclass Whole:\n n: int = modal.parameter()\n @modal.enter()\n"
        " def begin(self): self.m = self.n\n"
        " @modal.method()\n def f(self, by): return self.m * by\n @modal.exit()\n"
        ' def end(self): notes["exited"] = self.n',
    ),
    works(
        DECORATORS,
        "concurrent",
        'max(f("together").map(range(4)))',
        4,
        "running = []\n@app.function(max_containers=1)\n@modal.concurrent(max_inputs=4)\nasync def together(n):\n"
        " import asyncio\n"
        " running.append(n)\n while len(running) < 4: await asyncio.sleep(0.05)\n return len(running)",
    ),
    works(
        DECORATORS,
        "batched",
        'max(f("batch").map(range(4)))',
        4,
        "@app.function()\n@modal.batched(max_batch_size=4, wait_ms=30000)\ndef batch(ns): return [len(ns)] * len(ns)",
    ),
    works(
        DECORATORS,
        "fastapi_endpoint",
        'get(f("endpoint").get_web_url())',
        [200, '"fine"'],
        '@app.function()\n@modal.fastapi_endpoint()\ndef endpoint(): return "fine"',
    ),
    removed(
        DECORATORS,
        "web_endpoint",
        "has been renamed to `@modal.fastapi_endpoint`",
        "modal.web_endpoint()",
        "the SDK refuses it: use `fastapi_endpoint`",
    ),
    works(
        DECORATORS,
        "asgi_app, wsgi_app",
        'get(f("asgi").get_web_url()) + get(f("wsgi").get_web_url())',
        [200, "asgi", 200, "wsgi"],
        "@app.function()\n@modal.asgi_app()\ndef asgi():\n async def answer(scope, receive, send):\n"
        '  await send({"type": "http.response.start", "status": 200, "headers": []})\n'
        '  await send({"type": "http.response.body", "body": b"asgi"})\n return answer\n'
        "@app.function()\n@modal.wsgi_app()\ndef wsgi():\n def answer(environ, start):\n"
        '  start("200 OK", [])\n  return [b"wsgi"]\n return answer',
    ),
    works(
        DECORATORS,
        "web_server",
        'get(f("web").get_web_url())',
        [200, "ok"],
        HANDLER
        + "\n@app.function()\n@modal.web_server(PORT + 0)\ndef web():\n"
        + ' server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT + 0), Slow)\n'
        + " threading.Thread(target=server.serve_forever, daemon=True).start()",
        note="one container; its port must be free on this machine",
    ),
    refused_code(
        DECORATORS,
        "clustered, Cluster",
        "clustered",
        "import modal.experimental\n@app.function(serialized=True)\n@modal.experimental.clustered(size=2)\n"
        "def f(): pass",
    ),
    refused_code(
        DECORATORS,
        "sessioned, Server.sessions",
        "sessions",
        "@app.server(serialized=True)\n@modal.sessioned()\nclass S:\n @modal.enter()\n def f(self): pass",
    ),
    refused_code(
        DECORATORS,
        "experimental",
        "experimental.http_server",
        "@app.cls(serialized=True)\n@modal.experimental.http_server(8000, proxy_regions=['us-east'])\n"
        "class S:\n @modal.enter()\n def f(self): pass",
        "`http_server`",
    ),
    works(
        DECORATORS,
        "current_input_id, current_function_call_id, is_local",
        'found = f("ids").remote(); return [found[0][:3], found[1][:3], found[2], modal.is_local()]',
        ["in-", "fc-", False, True],
        "@app.function()\n"
        "def ids(): return [modal.current_input_id(), modal.current_function_call_id(), modal.is_local()]",
    ),
    works(
        SERVERS,
        "App.server, Server, Server.get_url, Server.from_name, port=, unauthenticated=",
        'served(s("Served").get_url())',
        [200, "ok"],
        "\n@app.server(port=PORT + 1, unauthenticated=True,"
        ' max_concurrency=1, target_concurrency=1, scaleup_window=5, compute_region="us-east", exit_grace_period=5)\n'
        "class Served:\n @modal.enter()\n def begin(self):\n"
        '  server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT + 1), Slow)\n'
        "  threading.Thread(target=server.serve_forever, daemon=True).start()",
        note="one container; its port must be free on this machine; 503 until it listens",
    ),
    works(
        SERVERS,
        "max_concurrency=",
        """
        served(s("Served").get_url())
        import threading
        # It may itself come while there is another request.
        held = threading.Thread(target=served, args=[s("Served").get_url() + "/hold"])
        held.start()
        refused = until(lambda: get(s("Served").get_url())[0] == 429)
        modal.Dict.from_name("features-notes")["released"] = True
        held.join()
        return refused
        """,
    ),
    ignored(
        SERVERS,
        "target_concurrency=, scaleup_window=, compute_region=",
        "there is one container, on this machine",
        'settings = s("Served").autoscaler.settings(); return [settings.target_concurrency, settings.scaleup_window]',
        [1, 5],
    ),
    works(
        SERVERS,
        "exit_grace_period=, Server.info, Server.hydrate, Server.object_id, Server.from_id",
        'info = s("Served").info(); return [info.exit_grace_period, info.port > 0,'
        ' modal.Server.from_id(s("Served").hydrate().object_id).get_url() == s("Served").get_url()]',
        [5, True, True],
    ),
    works(
        SERVERS,
        "h2_enabled=",
        'until(lambda: get(s("Spoken").get_url())[0] == 502); return until(lambda: note("preface"))',
        "PRI * HTTP/2.0",
        "\n@app.server(port=PORT + 2, h2_enabled=True, unauthenticated=True)\n"
        "class Spoken:\n @modal.enter()\n def begin(self): threading.Thread(target=self.listen, daemon=True).start()\n"
        ' def listen(self):\n  import socket\n  with socket.create_server(("127.0.0.1", PORT + 2)) as server:\n'
        "   while True:\n    with server.accept()[0] as client:\n"
        '     if said := client.recv(14).decode(): notes["preface"] = said',
    ),
    works(
        SERVERS,
        "Server.autoscaler, Server.update_autoscaler",
        's("Served").autoscaler.update(max_containers=1).max_containers',
        1,
    ),
    works(SERVERS, "Server.logs", 'served(s("Served").get_url()); return [*s("Served").logs.tail(10)] is not None'),
    refused(SERVERS, "Server.stats", "ServerGetTimeRangeStats", 's("Served").stats()'),
    refused(SERVERS, "Server.metrics", "MetricsGetInfo", 's("Served").metrics.schema()'),
]

"""Rows of the methods of images."""

from __future__ import annotations

from sdk_features import ignored, refused, refused_code, works

IMAGES = "Images"

ROWS = [
    works(
        IMAGES,
        "Image, Image.debian_slim, Image.env, Image.workdir, Image.pipe, Image.imports",
        'f("plain_image").remote()',
        ["b", "/srv/features"],
        "with base.imports(): import json\n"
        'piped = base.pipe(lambda image: image.env({"A": "b"})).workdir("/srv/features")\n'
        "@app.function(image=piped)\ndef plain_image(): return [os.environ['A'], os.getcwd()]",
    ),
    works(
        IMAGES,
        "Image.add_local_file, Image.add_local_dir, Image.add_local_python_source, FilePatternMatcher",
        'f("with_files").remote()',
        [True, True, False, True],
        "here = pathlib.Path(__file__).parent\n"
        'filled = base.add_local_file(__file__, "/files/one").add_local_dir(here / "files", "/files/all",'
        ' ignore=modal.FilePatternMatcher("*.tmp")).add_local_python_source("features_helper")\n'
        "@app.function(image=filled)\ndef with_files():\n import features_helper\n"
        ' paths = ["/files/one", "/files/all/a.txt", "/files/all/b.tmp"]\n'
        " return [*map(os.path.exists, paths), features_helper.VALUE]",
    ),
    works(
        IMAGES,
        "Image.run_function",
        'f("prepared").remote()',
        "prepared",
        'def prepare(): pathlib.Path("made").write_text("prepared")\n'
        "@app.function(image=base.run_function(prepare))\ndef prepared(): return pathlib.Path('made').read_text()",
    ),
    works(
        IMAGES,
        "Image.from_registry, Image.from_aws_ecr, Image.from_gcp_artifact_registry",
        'f("registry").remote()',
        1,
        '@app.function(image=modal.Image.from_registry("python:%d.%d-slim" % sys.version_info[:2]))\n'
        "def registry(): return 1",
        note="images of Python; others are refused, or taken as one with `--images=skip`",
    ),
    works(
        IMAGES,
        "Image.from_dockerfile, Image.dockerfile_commands",
        'f("docker").remote()',
        ["file", "line"],
        "dockerfile = pathlib.Path(__file__).parent / 'Dockerfile'\n"
        "@app.function(image=modal.Image.from_dockerfile(dockerfile).dockerfile_commands('ENV B=line'))\n"
        "def docker(): return [os.environ['A'], os.environ['B']]",
        note="what is about Python; other steps: as for `Image.run_commands`",
    ),
    works(
        IMAGES,
        "Image.pip_install, Image.uv_pip_install, Image.pip_install_from_requirements",
        'f("packaged").remote()',
        "1.0",
        "here = pathlib.Path(__file__).parent\n"
        "options = dict(find_links=str(here / 'wheels'), extra_options='--no-index')\n"
        "packed = base.pip_install('lm_one', **options).uv_pip_install('lm_one', **options)\n"
        "if modal.is_local(): packed = packed.pip_install_from_requirements(here / 'requirements.txt', **options)\n"
        "@app.function(image=packed)\ndef packaged():\n import lm_one\n return lm_one.VERSION",
        note="by uv, from the indexes that the image or the server's environment names",
    ),
    works(
        IMAGES,
        "Image.uv_sync, Image.pip_install_from_pyproject",
        'f("synced").remote()',
        "1.0",
        "here = pathlib.Path(__file__).parent\n"
        "of_project = base\n"
        "if modal.is_local(): of_project = base.uv_sync(str(here)).pip_install_from_pyproject(\n"
        " here / 'pyproject.toml', find_links=str(here / 'wheels'), extra_options='--no-index')\n"
        "@app.function(image=of_project)\ndef synced():\n import lm_one\n return lm_one.VERSION",
    ),
    works(
        IMAGES,
        "Image.poetry_install_from_file",
        'app = modal.App("features-poetry")\n'
        'app.function(serialized=True, image=modal.Image.debian_slim().poetry_install_from_file(here("pyproject.toml"),'
        " ignore_lockfile=True))(without)\n"
        "return fails_with(app.deploy, 'poetry')",
        note="poetry comes from the index, too",
    ),
    works(
        IMAGES,
        "Image.pip_install_private_repos",
        'secret = modal.Secret.from_dict({"GITHUB_TOKEN": "t"})\n'
        'app = modal.App("features-private")\n'
        'app.function(serialized=True, image=modal.Image.debian_slim().pip_install_private_repos("github.com/me/there",'
        ' git_user="me", secrets=[secret]))(without)\n'
        "return fails_with(app.deploy, 'github.com/me/there')",
    ),
    *(
        refused_code(
            IMAGES,
            name,
            "--images=skip",
            f"@app.function(serialized=True, image=modal.Image.debian_slim(){call})\ndef f(): pass",
            "skipped with `--images=skip`, run on this machine with `--unsafe-run-commands`",
        )
        for name, call in [
            ("Image.apt_install", '.apt_install("curl")'),
            ("Image.run_commands", '.run_commands("make install")'),
            ("Image.shell", '.shell(["/bin/bash", "-c"]).run_commands("make install")'),
        ]
    ),
    refused_code(
        IMAGES,
        "Image.micromamba, Image.micromamba_install",
        "Local Modal does not carry out",
        '@app.function(serialized=True, image=modal.Image.micromamba().micromamba_install("x"))\ndef f(): pass',
        "skipped with `--images=skip`",
    ),
    refused_code(
        IMAGES,
        "Image.from_scratch",
        "scratch",
        "@app.function(serialized=True, image=modal.Image.from_scratch())\ndef f(): pass",
    ),
    ignored(
        IMAGES,
        "Image.entrypoint, Image.cmd",
        "containers run the function only",
        'f("entered").remote()',
        1,
        "@app.function(image=base.entrypoint(['/none']).cmd(['none']))\ndef entered(): return 1",
    ),
    works(
        IMAGES,
        "Image.build, Image.from_id, Image.hydrate, Image.object_id, Image.client",
        """
        app = modal.App("features-image")
        image = modal.Image.debian_slim().env({"X": "y"})
        image = image.build(modal.App.lookup("features-image", create_if_missing=True))
        app.function(serialized=True, image=modal.Image.from_id(image.object_id), name="built")(lambda: os.environ["X"])
        with app.run(): return app.registered_functions["built"].remote()
        """,
        "y",
    ),
    refused_code(
        IMAGES,
        "Image.from_name",
        "Image",
        '@app.function(serialized=True, image=modal.Image.from_name("none"))\ndef f(): pass',
    ),
    refused(
        IMAGES,
        "Image.publish",
        "ImagePublish",
        'app = modal.App.lookup("features-image", create_if_missing=True)\n'
        'return modal.Image.debian_slim().build(app).publish("features-image")',
    ),
    refused(
        IMAGES,
        "Image.logs",
        "Image",
        'app = modal.App.lookup("features-image", create_if_missing=True)\n'
        "return [*modal.Image.debian_slim().build(app).logs.fetch()]",
    ),
]

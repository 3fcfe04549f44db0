"""The files that a container sees: the machine's, over them its own, its Volumes, and private folders.

A private folder is an overlay. Its lower layers are the files of the image and its mounts, and the machine's files at
that path; the container's writes go into a folder of the container. The home is a private folder, so that nothing is
ever written into the home of the user.

Loaded by the runner. Uses only the standard library.
"""

import contextlib
import ctypes
import importlib
import json
import os
import stat
import sys
from typing import Any

HOME = "root"
"""The folder of a tree that is the home of a container's user."""
VOLUMES_VARIABLE = "MODAL_LOCAL_VOLUMES"

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

Spec = dict[str, Any]
Volume = dict[str, Any]


def enter(spec: Spec) -> None:
    """Mount the container's files at their paths. If the system does not allow that, set variables that name their
    paths instead."""
    files = "/"
    spec["overlays"] = []
    try:
        spec["user_namespace"] = _own_namespace()
        _mount("tmpfs", spec["root"], kind="tmpfs")
        _fill(spec)
        os.chroot(spec["root"])
    except OSError:
        files = spec["tree"]
        _point_to(spec["volumes"])
    home = os.path.join(files, HOME)
    _set_home(spec)
    inherited = [_placed(path, files) for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    os.environ["PYTHONPATH"] = ":".join([home, *inherited])
    sys.path[:0] = [home, *inherited]
    # A folder that was not there when Python started may be there now.
    importlib.invalidate_caches()
    directory = _placed(spec["directory"], files) if spec["directory"] else home
    os.chdir(directory if os.path.isdir(directory) else home)


def renew(spec: Spec, server: Spec) -> None:
    """Give a forked container its own private folders and Volumes, mounted over those of its server."""
    if VOLUMES_VARIABLE in os.environ:
        if spec["volumes"] != server["volumes"]:
            _point_to(spec["volumes"])
        return
    if not server["overlays"] and spec["volumes"] == server["volumes"]:
        return
    _checked(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS), "unshare")
    spec.update(user_namespace=server["user_namespace"], overlays=[])
    # They are covered until they are mounted again.
    held = {place: os.open(place, os.O_PATH) for place in spec["shown"]}
    places = {place: f"/proc/self/fd/{descriptor}" for place, descriptor in held.items()}
    for path in server["overlays"]:
        # An overlay on the server's, to which nothing is written any more. If too many are stacked, containers share
        # that of their server, and have a home of their own.
        with contextlib.suppress(OSError):
            _overlay(spec, path, path, [path])
        _uncover(places, path, path)
    for descriptor in held.values():
        os.close(descriptor)
    _set_home(spec)
    for path, volume in spec["volumes"].items():
        if volume != server["volumes"].get(path) or any(_is_below(path, private) for private in spec["overlays"]):
            _bind_volume(volume, path)
    # The working folder may be covered.
    os.chdir(os.getcwd())


def _set_home(spec: Spec) -> None:
    if f"/{HOME}" in spec["overlays"]:
        os.environ["HOME"] = f"/{HOME}"


def _fill(spec: Spec) -> None:
    """Fill the empty root of a container."""
    private, volumes = spec["private"], spec["volumes"]
    late = {path: volume for path, volume in volumes.items() if any(_is_below(path, folder) for folder in private)}
    early = {path: volume for path, volume in volumes.items() if path not in late}
    _assemble(spec["root"], ["/", spec["tree"]], _nested(early))
    for path, added in private.items():
        _make_private(spec, path, added)
    for path, volume in late.items():
        target = _inside(spec["root"], path)
        os.makedirs(target, exist_ok=True)
        _bind_volume(volume, target)


def _make_private(spec: Spec, path: str, added: list[str]) -> None:
    """Cover a folder with a private one, if the folder exists. It is not assembled from parts, because its parents
    would not show files that others create in them later. `added`: what steps of the image wrote there, the last step
    first."""
    target = _inside(spec["root"], path)
    layers = [*added, _inside(spec["tree"], path)]
    if path == f"/{HOME}":
        layers.append(_hidden(spec, path))
    if os.access(path, os.R_OK | os.X_OK):
        layers.append(path)
    layers = [layer for layer in layers if os.path.isdir(layer)]
    try:
        _overlay(spec, path, target, layers)
    except OSError:
        # The data folder's file system may be none that overlays can write to.
        return
    _uncover({place: place for place in spec["shown"]}, path, target)


def _overlay(spec: Spec, path: str, target: str, layers: list[str]) -> None:
    upper, work = _inside(spec["folder"], f"private{path}"), _inside(spec["folder"], f"work/{path.replace('/', '_')}")
    os.makedirs(upper, exist_ok=True)
    os.makedirs(work, exist_ok=True)
    lower = ":".join(_escaped(layer) for layer in layers)
    # Volatile: the end of the container does not wait until the machine's disk has all that anybody wrote.
    options = f"lowerdir={lower},upperdir={_escaped(upper)},workdir={_escaped(work)},volatile"
    if spec["user_namespace"]:
        options += ",userxattr"
    _mount("overlay", target, kind="overlay", data=options)
    spec["overlays"].append(path)


def _uncover(places: dict[str, str], path: str, target: str) -> None:
    """Mount the server's own paths that are in a private folder over the overlay, from these sources. A socket cannot
    be reached through an overlay, and later changes by others may be invisible."""
    for place, source in places.items():
        if _is_below(place, path):
            _mount(source, target + place.removeprefix(path), flags=MS_BIND)


def _hidden(spec: Spec, path: str) -> str:
    """Make a layer that hides the hidden files of the user whose home is also the container's: credentials, settings,
    caches. Those that the interpreter needs stay."""
    needed = [sys.prefix, sys.base_prefix, *spec["shown"], *sys.path, *os.environ.get("PATH", "").split(":")]
    layer = _inside(spec["folder"], "hidden")
    os.makedirs(layer, exist_ok=True)
    if os.access(path, os.R_OK | os.X_OK):
        for name in os.listdir(path):
            hidden = os.path.join(path, name)
            if name.startswith(".") and not any(_is_below(os.path.abspath(place), hidden) for place in needed if place):
                # An overlay's mark of a deleted file.
                os.mknod(os.path.join(layer, name), stat.S_IFCHR, os.makedev(0, 0))
    return layer


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _inside(folder: str, path: str) -> str:
    return os.path.join(folder, path.lstrip("/"))


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _placed(path: str, files: str) -> str:
    """Return where a path of a container is, whose files are below `files`."""
    inside = os.path.join(files, path.lstrip("/"))
    return inside if os.path.exists(inside) else path


def _own_namespace() -> bool:
    """Enter a mount namespace of this process's own. Returns whether that took a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    needs_user: bool = libc.unshare(CLONE_NEWNS) != 0
    if needs_user:
        # Without the right to mount, it takes a user namespace, in which users keep their ids.
        _checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        for name, text in ("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    return needs_user


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded, options = kind.encode() if kind else None, os.fsencode(data) if data else None
    _checked(libc.mount(os.fsencode(source), os.fsencode(target), encoded, ctypes.c_ulong(flags), options), target)


def _checked(outcome: int, what: str) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _point_to(volumes: dict[str, Volume]) -> None:
    os.environ[VOLUMES_VARIABLE] = json.dumps({path: volume["folder"] for path, volume in volumes.items()})


def _nested(volumes: dict[str, Volume]) -> dict[str, Any]:
    """Volumes by the parts of their paths: {"data": {"a": (Volume,), "b": (Volume,)}}."""
    top: dict[str, Any] = {}
    for path, volume in volumes.items():
        *parents, name = [part for part in path.split("/") if part]
        level = top
        for parent in parents:
            level = level.setdefault(parent, {})
        level[name] = (volume,)
    return top


def _assemble(new: str, layers: list[str], volumes: dict[str, Any]) -> None:
    """Fill the empty folder `new` from layers, of which later ones win, and mount Volumes over them."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        for entry in _entries(layer):
            below = found.get(entry.name, [])
            merges = entry.is_dir(follow_symlinks=False) and all(_is_folder(path) for path in below)
            found[entry.name] = [*below, entry.path] if merges else [entry.path]
    for name in found.keys() | volumes.keys():
        target, paths, volume = os.path.join(new, name), found.get(name, []), volumes.get(name)
        if isinstance(volume, tuple):
            os.mkdir(target)
            _bind_volume(volume[0], target)
        elif volume is None and len(paths) == 1:
            _show(paths[0], target)
        else:
            os.mkdir(target)
            _assemble(target, [path for path in paths if _is_folder(path)], volume or {})


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        # A container does not see a folder that this user cannot read, either.
        return []


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _show(source: str, target: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if _is_folder(source):
        os.mkdir(target)
    else:
        with open(target, "x"):
            pass
    _mount(source, target, flags=MS_BIND | MS_REC)


def _bind_volume(volume: Volume, target: str) -> None:
    _mount(volume["folder"], target, flags=MS_BIND | MS_REC)
    if volume["read_only"]:
        _mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)

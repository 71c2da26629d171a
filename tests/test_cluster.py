"""A cluster: everything comes back once, whatever dies; those that need Dask skip without it."""

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from diveqcodec.cluster import Cluster, _silenced, connected, threads_here
from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.processes import Died
from diveqcodec.scheduler import check_address


def work(folder: Path, name: str) -> tuple[str, int]:
    """What it does follows from the name."""
    (folder / f"{name} {os.getpid()} {time.monotonic_ns()}").touch()
    kind = name.partition(" ")[0]
    if kind == "slow":
        time.sleep(0.2)
    if kind == "bad":
        raise DiveqError(f"{name}: is bad")
    if kind == "foreign":
        raise ModuleNotFoundError("No module named 'diveqcodec'")
    if kind == "shaky" and len(list(folder.glob(f"{name} *"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the first time only, as from outside
    if kind == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return name, threads_here() or 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="Dask is not installed")
    with connected("local", 2) as found:
        yield found


def done(cluster: Cluster, folder: Path, names: list[str]) -> dict[str, tuple[str, int] | Died]:
    found = list(cluster.map(functools.partial(work, folder), names))
    assert sorted(name for name, _ in found) == sorted(names), "something was lost"
    return dict(found)


def test_addresses() -> None:
    given = {
        "local": "local",
        "host:8786": "tcp://host:8786",
        "dask://host:8786": "tcp://host:8786",
        "tls://host:1": "tls://host:1",
        "tcp://[::1]:8786/": "tcp://[::1]:8786",
        "s.json": "s.json",
    }
    assert {one: check_address(one) for one in given} == given
    for bad in (
        *("", " ", "host", "ray://host:10001", "host:", ":8786", "host:port", "http://host:80"),
        *("::1:8786", "tcp://::1:8786", "[::1]", "[host]:1", "a b:1", "a\nb:1", "user:word@host:1"),
        *("host:0", "host:65536", "host:999999", "host:-1", "host:\u0663", "host:1/x", "local:"),
    ):
        with pytest.raises(ConfigError, match="use local, HOST:PORT of a Dask scheduler"):
            check_address(bad)


def test_without_dask_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DiveqError, match=r"^--cluster needs Dask: pip install 'diveqcodec\[cluste"):
        connected("local").__enter__()
    monkeypatch.delitem(sys.modules, "distributed")
    assert threads_here() is None


def test_a_configuration_of_dask_that_cannot_be_read(tmp_path: Path) -> None:
    """As `import dask` says it; in a process of its own, for it is read once."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    (tmp_path / "dask.yaml").write_text("distributed: [open\n")
    asked = "from diveqcodec.cluster import connected; connected('local').__enter__()"
    environment = os.environ | {"DASK_CONFIG": str(tmp_path)}
    command = [sys.executable, "-c", asked]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert "DiveqError: --cluster: Dask cannot be loaded (" in last
    assert "dask.yaml" in last


def test_local_workers_that_do_not_come_are_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr("diveqcodec.cluster._WAITING", 0.3)
    monkeypatch.setattr("diveqcodec.cluster._PATIENCE", 0.1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as local:
        cluster = Cluster(distributed.Client(local), "local")
        with pytest.raises(DiveqError, match="its workers die as soon as they start; there may be"):
            done(cluster, tmp_path, ["file 1"])
        cluster._client.close()


def test_both_workers_do_everything_once(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"slow {i}" for i in range(20)]
    assert done(cluster, tmp_path, names) == {name: (name, 1) for name in names}
    tries = [path.name for path in tmp_path.iterdir()]
    assert len(tries) == len(names)
    assert len({name.split()[2] for name in tries}) == 2
    assert done(cluster, tmp_path, []) == {}


def _not_in_workers(name: str) -> str | None:
    return None if multiprocessing.parent_process() else name


def _not_in_the_scheduler(name: str) -> str | None:
    return name if multiprocessing.parent_process() else None


@pytest.mark.parametrize(
    ("find", "who"), [(_not_in_workers, "worker tcp://.*"), (_not_in_the_scheduler, "scheduler")]
)
def test_machines_without_the_package_are_given_nothing(
    find: Callable[[str], str | None], who: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler of a local cluster is in this process."""
    monkeypatch.setattr("diveqcodec.cluster.find_spec", find)
    fresh = Cluster(cluster._client, "tcp://h:1")
    with pytest.raises(DiveqError, match=f"^--cluster tcp://h:1: the {who} has no diveqcodec; ins"):
        next(fresh.map(str, ["file 1"]))


def test_nothing_of_what_dask_says_is_heard() -> None:
    """It would stand between the lines of the command."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    dask = logging.getLogger("distributed")
    dask.addHandler(handler)
    try:
        with _silenced():
            dask.error("a worker is gone, with a traceback")
        assert stream.getvalue() == ""
        dask.error("all of it is over")
        assert stream.getvalue() == "all of it is over\n"
    finally:
        dask.removeHandler(handler)


@pytest.mark.skipif(sys.platform == "win32", reason="there it is no signal")
def test_workers_hear_no_ctrl_c(cluster: Cluster, tmp_path: Path) -> None:
    """A terminal sends it to all processes of a command, which alone is to stop."""
    names = [f"slow {i}" for i in range(20)]
    pids = []
    for folder in (tmp_path / "before", tmp_path / "after"):
        folder.mkdir()
        done(cluster, folder, names)
        pids.append({int(path.name.split()[2]) for path in folder.iterdir()})
        for pid in pids[0]:
            os.kill(pid, signal.SIGINT)
    assert len(pids[0]) == 2
    assert pids[1] == pids[0]
    assert os.getpid() not in pids[0]


def test_things_are_pulled_as_there_is_room(cluster: Cluster, tmp_path: Path) -> None:
    pulled = list[str]()

    def names() -> Iterator[str]:
        for i in range(40):
            pulled.append(f"file {i}")
            yield pulled[-1]

    for count, _ in enumerate(cluster.map(functools.partial(work, tmp_path), names()), start=1):
        assert len(pulled) - count < 10
    assert len(pulled) == 40


def test_a_worker_that_is_killed_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    names = ["slow 0", "shaky 1", *(f"slow {i}" for i in range(2, 10))]
    assert done(cluster, tmp_path, names) == {name: (name, 1) for name in names}
    tries = [path.name.rpartition(" ")[0] for path in tmp_path.iterdir()]
    assert len([name for name in tries if name.startswith("shaky 1")]) == 2


@pytest.mark.slow
def test_what_kills_every_worker_costs_itself(cluster: Cluster, tmp_path: Path) -> None:
    names = ["deadly 0", *(f"slow {i}" for i in range(1, 9)), "deadly 9"]
    found = done(cluster, tmp_path, names)
    dead = {name: result for name, result in found.items() if isinstance(result, Died)}
    assert dead.keys() == {"deadly 0", "deadly 9"}
    said = "the workers at work on it died, the last at tcp://"
    assert all(result.text.startswith(said) for result in dead.values())


def test_an_error_of_the_work_ends_it(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(DiveqError, match="^bad 0: is bad$"):
        done(cluster, tmp_path, ["bad 0", *(f"slow {i}" for i in range(30))])
    assert len(list(tmp_path.iterdir())) < 20
    with pytest.raises(DiveqError, match="install the same diveqcodec on all machines"):
        done(cluster, tmp_path, ["foreign 0"])


def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr("diveqcodec.scheduler._CONNECTING", 0.5)
    with pytest.raises(DiveqError, match="tcp://127.0.0.1:9: no scheduler answers; start one"):
        connected("tcp://127.0.0.1:9").__enter__()
    with pytest.raises(DiveqError, match="no such file; is the scheduler running"):
        connected(f"{tmp_path}/s.json").__enter__()


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr("diveqcodec.cluster._WAITING", 0.3)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as local,
        pytest.raises(DiveqError, match="has no workers; start some: dask worker tcp://"),
    ):
        connected(local.scheduler_address).__enter__()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad request\r\nServer: another\r\n\r\n"])
def test_something_that_is_no_scheduler(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing, as a machine that hangs does, or something else."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr("diveqcodec.scheduler._CONNECTING", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer:
            threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        with pytest.raises(DiveqError, match=r"^--cluster tcp://127.*: no scheduler (ans|can be)"):
            connected(f"tcp://127.0.0.1:{server.getsockname()[1]}").__enter__()


def _answer(server: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tls://127.0.0.1:9", "no scheduler can be asked \\(TLS expects"),  # without certificates
        (f"tcp://{'h' * 70}:1", "no scheduler can be asked \\(encoding with 'idna'"),
    ],
)
def test_whatever_keeps_from_connecting_is_one_line(address: str, said: str) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    with pytest.raises(DiveqError, match=f"^--cluster {address}: {said}.*$"):
        connected(address).__enter__()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[1]", b"5", b'{"address": 5}', b'{"address": ""}', b"\xff\xfe\x00", None],
)
def test_what_is_no_scheduler_file(content: bytes | None, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    path = tmp_path / "s.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    said = "cannot be read: Is a directory" if content is None else "has no address of a scheduler"
    with pytest.raises(DiveqError, match=f"^--cluster {path}: {said}"):
        connected(str(path)).__enter__()


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_a_scheduler_that_goes_away(tmp_path: Path, pause: float) -> None:
    """Before the next thing is waited for, or after."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    path = tmp_path / "s.json"
    local = distributed.LocalCluster(n_workers=1, dashboard_address=":0", silence_logs=50)
    path.write_text(json.dumps({"address": local.scheduler_address}))
    with connected(str(path)) as cluster:
        results = cluster.map(functools.partial(work, tmp_path), (f"slow {i}" for i in range(99)))
        next(results)
        local.close()
        time.sleep(pause)
        with pytest.raises(DiveqError, match="the scheduler is gone; start it, and go on with"):
            list(results)


@pytest.mark.parametrize("is_loop_closed", [False, True])
def test_a_connection_that_was_given_up(is_loop_closed: bool, tmp_path: Path) -> None:
    """Dask's client closes when it has tried in vain for long enough; soon after its event loop."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with (
        distributed.LocalCluster(n_workers=1, dashboard_address=":0", silence_logs=50) as local,
        connected(local.scheduler_address) as cluster,
    ):
        results = cluster.map(functools.partial(work, tmp_path), (f"slow {i}" for i in range(99)))
        next(results)
        cluster._client.close()
        while is_loop_closed and not cluster._client.loop.asyncio_loop.is_closed():
            time.sleep(0.01)
        with pytest.raises(DiveqError, match="the scheduler is gone"):
            list(results)
        with pytest.raises(DiveqError, match="the scheduler is gone"):
            list(cluster.map(functools.partial(work, tmp_path), ["file 1"]))
        with pytest.raises(DiveqError, match="the scheduler is gone"):
            list(Cluster(cluster._client, "x:1").map(functools.partial(work, tmp_path), ["file 1"]))

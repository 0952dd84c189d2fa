"""Every check of this project: `nox` alone runs lint, types, tests, ptx and driver."""

import nox

nox.options.sessions = ["lint", "types", "tests", "ptx", "driver"]
nox.options.error_on_missing_interpreters = False

DEEP_STATES = {"CRASH_STATES_LIMIT": f"{2**18}", "CRASH_STATES_ROUNDS": "10"}
"""How many subsets of the pending writes are tried at each crash, and how often all is recorded."""

PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    session.install("-e", ".[cli,test]", *group("dev"))
    session.run("mypy", *session.posargs)
    session.run("pyright", "--project", "pyproject.toml")


@nox.session
def tests(session: nox.Session) -> None:
    """The default suite, on the Python that runs nox: 7 minutes on 2 cores."""
    session.install("-e", ".[cli,test]")
    session.run("pytest", "-n", "3", "--dist", "worksteal", *session.posargs)  # 3: many wait


@nox.session
def ptx(session: nox.Session) -> None:
    """Compile every CUDA kernel, and run numba-cuda's simulator; no device is needed."""
    compile_kernels(session)


@nox.session(python=["3.12", "3.13", "3.14"])
def ptx_versions(session: nox.Session) -> None:
    """As `ptx`, with the NumPy that pip chooses on other Pythons."""
    compile_kernels(session)


def compile_kernels(session: nox.Session) -> None:
    session.install("-e", ".[cli,cuda13,testing]", "pytest>=8.4")
    files = ["arrays/ptx", "arrays/test_device_arrays.py", "arrays/test_simulated.py"]
    files = session.posargs or [f"tests/{name}" for name in (*files, "kernels/test_devices.py")]
    session.run(
        "python", "-W", "error", "-m", "pytest", "-m", "not gpu", *files,
        env={"REQUIRE_PTX": "1", "NUMBA_ENABLE_CUDASIM": "0"},
    )  # fmt: skip


@nox.session
def driver(session: nox.Session) -> None:
    """Run what needs a device on a stand-in for the CUDA driver, below the real numba-cuda."""
    session.install("-e", ".[cli,cuda13,testing]", "pytest>=8.4")
    run = ["python", "-m", "pytest", "-p", "tests.driver.plugin", "-p", "no:cacheprovider"]
    on_device = ["tests/arrays/test_gpu.py", "tests/arrays/test_device_arrays.py"]
    session.run(*run, "tests/driver", *session.posargs, env={"DRIVER_DEVICES": "2"})
    session.run(*run, "-m", "gpu", *on_device, *session.posargs)
    known = ["-k", "not other_streams"]  # at random, a stream runs that nobody waits for
    session.run(*run, "-m", "gpu", *known, on_device[0], env={"DRIVER_MODE": "random"})


@nox.session
def interop(session: nox.Session) -> None:
    """Test arrays of torch and JAX on the host."""
    session.install("-e", ".[test]", "torch>=2.6", "jax>=0.6")
    session.run("pytest", "-W", "error", *(session.posargs or ["tests/arrays/test_interop.py"]))


@nox.session
def gpu(session: nox.Session) -> None:
    """Test what needs a CUDA device, with arrays of CuPy, torch and JAX if they are installed."""
    session.install("-e", ".[cli,cuda,test]")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session
def gpu_first(session: nox.Session) -> None:
    """On a GPU that is lent for minutes: what it is, its tests, the benchmark; all go on failure.

    Each figure is in `benchmarks/results/` as soon as it is there.
    """
    session.install("-e", ".[cli,cuda,test]", *group("bench"))
    tests = ["tests/arrays", "tests/kernels/test_devices.py"]
    for command in (
        ["nvidia-smi"],
        ["pytest", "-m", "gpu", "-v", *tests],
        ["python", "-m", "benchmarks.gpu", *session.posargs],
    ):
        session.run(*command, external=True, success_codes=range(256))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def versions(session: nox.Session) -> None:
    """The default suite on every supported Python that is installed."""
    session.install("-e", ".[cli,test]")
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def deep(session: nox.Session) -> None:
    """The properties with 10,000 examples each, and the conformance kit far deeper."""
    session.install("-e", ".[cli,test]")
    names = ["arrays/test_lazy.py", "archive/test_delta.py", "format/test_container.py", "schema"]
    names += ["test_capture.py", "tree", "testing", "kernels/test_gallery.py", "runner/test_run.py"]
    names += ["format/test_bit_rot.py", "test_docs.py"]
    files = [f"tests/{name}" for name in names]
    session.run(
        "pytest", "-n", "2", *(session.posargs or files), env={"HYPOTHESIS_PROFILE": "deep"}
    )


@nox.session
def crash(session: nox.Session) -> None:
    """Five million crash states, and every errno at every system call: 40 minutes on 2 cores."""
    session.install("-e", ".[cli,test]")
    tests = ["pytest", "-n", "2", "--dist", "worksteal", *session.posargs]
    session.run(*tests, "tests/crash/test_crash_states.py", env=DEEP_STATES)
    session.run(*tests, "tests/crash/test_injected.py", env={"EVERY_ERRNO": "1"})


@nox.session
def kills(session: nox.Session) -> None:
    """2,000 kills at random moments of saves, and some of runs of every kernel of the gallery."""
    session.install("-e", ".[cli,test]")
    env = {"HYPOTHESIS_PROFILE": "deep"}
    session.run("pytest", "tests/crash/test_random_kills.py", env=env)
    session.run("python", "-m", "tests.crash.kills", *(session.posargs or ["--kills", "2000"]))


@nox.session
def grace(session: nox.Session) -> None:
    """100 times SIGTERM at a random moment of a real run, which must save and exit: 5 minutes."""
    session.install("-e", ".[cli,test]")
    session.run("python", "-m", "tests.supervisor.grace", *session.posargs)


@nox.session
def power(session: nox.Session) -> None:
    """300 power cuts each on ext4, XFS and LazyFS, as root; those not installed are left out."""
    session.install("-e", ".[cli,test]")
    for name in ("ext4", "xfs", "lazyfs"):
        cuts = session.posargs or ["--cuts", "300"]
        command = ["python", "-m", "tests.crash.power", "--file-system", name, *cuts]
        session.run(*command, success_codes=[0, 77])  # 77: not possible here; the output has why


@nox.session
def fuzz(session: nox.Session) -> None:
    """Two million hostile inputs."""
    session.install("-e", ".[cli,test]")
    session.run("python", "-m", "tests.hostile.fuzz", *(session.posargs or ["--inputs", "2000000"]))


@nox.session
def soak(session: nox.Session) -> None:
    """Supervised kernels with faults at random moments: 10 minutes."""
    session.install("-e", ".[cli,test]")
    session.run("python", "-m", "tests.supervisor.soak", *(session.posargs or ["--minutes", "10"]))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure us, the peers (large to install) and the physical limit side by side: 30 minutes."""
    session.install("-e", ".[cli,mpi]", "mpich>=5", *group("bench"), *group("peers"))
    for name in ("small_objects", "import_time", "listing", "manifests", "simulations.cluster"):
        session.run("python", "-m", f"benchmarks.{name}")
    for name in ("save_restore", "delta", "row_reads", "slowdown", "ranks"):
        session.run("python", "-m", f"benchmarks.{name}", *session.posargs)
    session.run("python", "-m", "benchmarks.object_store")


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Compare device arrays with the limits of a GPU, which is needed: 8 minutes.

    torch brings a CUDA of its own: to compare with it, install it, run `python -m benchmarks.gpu`.
    """
    session.install("-e", ".[cli,cuda]", *group("bench"))
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)


@nox.session
def bench_smoke(session: nox.Session) -> None:
    """Run the GPU benchmark at tiny sizes in Numba's simulator, where it measures nothing."""
    session.install("-e", ".[cli,test]", *group("bench"))
    session.run("pytest", "tests/gpu_benchmark.py")


@nox.session
def bench_crash_states(session: nox.Session) -> None:
    """What every crash state loses, in this library and in its peers."""
    session.install("-e", ".", "pytest", *group("bench"), *group("peers"))
    session.run("python", "-m", "benchmarks.crash_states", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main example, `wave` on PREM, to its end."""
    session.install("-e", ".[cli]")
    session.run("checkpointable", "run", "wave", "--store", f"{session.create_tmp()}/wave")

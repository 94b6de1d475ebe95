"""What goes into an executable, as cargo sees it; for third-party and sbom beside this.

Which crates are compiled for a target is what `cargo tree` says (the graph of `cargo metadata` also has what only tests
switch on); their licences and folders are from `cargo metadata`, their hashes from Cargo.lock. Standard library of Python 3.11
only. Must never depend on the order in which cargo or a directory names things.
"""

import json
import os
import subprocess
import sys
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

# As in release/targets.sh.
TRIPLES = {
    "aarch64": "aarch64-unknown-linux-musl",
    "armv7": "armv7-unknown-linux-musleabihf",
    "armv6": "arm-unknown-linux-musleabihf",
    "x86_64": "x86_64-unknown-linux-musl",
}


def cargo(manifest, *words):
    command = ["cargo", *words, "--locked", "--manifest-path", manifest]
    # Options of the caller's cargo must not change what is resolved.
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_BUILD_TARGET"}
    environment["CARGO_TERM_COLOR"] = "never"
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def tree(manifest, triple, edges):
    """The (name, version) of every crate below the root, and the root itself."""
    lines = cargo(manifest, "tree", "--edges", edges, "--prefix", "none", "--format", "{p}", "--target", triple).splitlines()
    return {(words[0], words[1].removeprefix("v")) for words in (line.split() for line in lines) if words}


def graph(manifest, triple):
    """By (name, version): whose description is cargo's package; and the edges of the graph of normal dependencies."""
    metadata = json.loads(cargo(manifest, "metadata", "--format-version", "1", "--filter-platform", triple))
    packages = {package["id"]: package for package in metadata["packages"]}

    def key(identity):
        return packages[identity]["name"], packages[identity]["version"]

    edges = {}
    for node in metadata["resolve"]["nodes"]:
        normal = [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        edges[key(node["id"])] = sorted({key(identity) for identity in normal})
    return {key(identity): package for identity, package in packages.items()}, edges


def root(manifest):
    with open(manifest, "rb") as file:
        package = tomllib.load(file)["package"]
    return package["name"], package["version"]


def linked(manifest, triple):
    """What is in the executable: no crates of ours, no macros that run in the compiler."""
    ours = {root(os.path.join(ROOT, "Cargo.toml")), root(manifest)}
    return tree(manifest, triple, "normal,no-proc-macro") - ours


def hashes(manifest):
    with open(os.path.join(os.path.dirname(os.path.abspath(manifest)), "Cargo.lock"), "rb") as file:
        packages = tomllib.load(file)["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def licence(package):
    """The SPDX expression; crates of long ago wrote a slash for OR."""
    return (package["license"] or "").replace("/", " OR ")

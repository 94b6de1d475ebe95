"""called.py SCRIPT…: the programs that shell scripts call by name, one in a line.

The shell itself is read by shfmt. What is called in a way that only shows when it runs is not found.
"""

import json
import subprocess
import sys

# Of the shell.
BUILTIN = set(". : [ break cd command continue eval exec exit export kill local printf read return set shift test trap true "
              "umask unset wait".split())
# What runs the program named behind it, and how many words of its own stand between.
LEADS_ON = {"exec": 0, "setsid": 0, "chroot": 1, "xargs": 0, "/bin/cttyhack": 0}
# Within the words of find.
FIND = "-exec"


def literal(word):
    """The text of a word, if it is one without any expansion."""
    parts = word["Parts"]
    if len(parts) == 1 and parts[0]["Type"] == "Lit":
        return parts[0]["Value"]
    return None


def called(words):
    """The programs of one simple command."""
    texts = [literal(word) for word in words]
    while texts:
        name = texts.pop(0)
        if name is None:
            return
        yield name
        if name == "find":
            texts = texts[texts.index(FIND) + 1:] if FIND in texts else []
        elif name in LEADS_ON:
            texts = [text for text in texts if not (text or "").startswith("-")][LEADS_ON[name]:]
        else:
            return


def walk(node, names, functions):
    if isinstance(node, list):
        for part in node:
            walk(part, names, functions)
    elif isinstance(node, dict):
        if node.get("Type") == "CallExpr":
            names.update(called(node.get("Args") or []))
        if node.get("Type") == "FuncDecl":
            functions.add(node["Name"]["Value"])
        for part in node.values():
            walk(part, names, functions)


found = set()
for path in sys.argv[1:]:
    with open(path, "rb") as script:
        tree = subprocess.run(["shfmt", "-ln", "posix", "-tojson"], stdin=script, stdout=subprocess.PIPE, check=True).stdout
    names, functions = set(), set()
    walk(json.loads(tree), names, functions)
    found |= names - functions - BUILTIN
print("\n".join(sorted(found)))

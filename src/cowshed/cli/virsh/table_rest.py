"""The commands on secrets, on the connection, and virsh's own.

Each row: name, module of its handler, summary, description, options. Each option: name, kind, help; kinds are explained
in `table`. Names, kinds and texts are virsh 9.0's, whose ``help`` people and programs read.
"""

from __future__ import annotations

SECRET = (
    (
        "secret-define",
        "secrets",
        "define or modify a secret from an XML file",
        "Define or modify a secret.",
        (
            ("file", "data!", "file containing secret attributes in XML"),
            ("validate", "bool", "validate the XML against the schema"),
        ),
    ),
    (
        "secret-dumpxml",
        "secrets",
        "secret attributes in XML",
        "Output attributes of a secret as an XML dump to stdout.",
        (
            ("secret", "data!", "secret UUID"),
            ("xpath", "string-", "xpath expression to filter the XML document"),
            ("wrap", "bool", "wrap xpath results in an common root element"),
        ),
    ),
    (
        "secret-event",
        "events",
        "Secret Events",
        "List event types, or wait for secret events to occur",
        (
            ("secret", "string", "filter by secret name or uuid"),
            ("event", "string", "which event type to wait for"),
            ("loop", "bool", "loop until timeout or interrupt, rather than one-shot"),
            ("timeout", "int", "timeout seconds"),
            ("list", "bool", "list valid event types"),
            ("timestamp", "bool", "show timestamp for each printed event"),
        ),
    ),
    (
        "secret-get-value",
        "secrets",
        "Output a secret value",
        "Output a secret value to stdout.",
        (
            ("secret", "data!", "secret UUID"),
            ("plain", "bool", "get value without converting to base64"),
        ),
    ),
    (
        "secret-list",
        "secrets",
        "list secrets",
        "Returns a list of secrets",
        (
            ("ephemeral", "bool", "list ephemeral secrets"),
            ("no-ephemeral", "bool", "list non-ephemeral secrets"),
            ("private", "bool", "list private secrets"),
            ("no-private", "bool", "list non-private secrets"),
        ),
    ),
    (
        "secret-set-value",
        "secrets",
        "set a secret value",
        "Set a secret value.",
        (
            ("secret", "data!", "secret UUID"),
            ("file", "string-", "read secret from file"),
            ("plain", "bool", "read the secret from file without converting from base64"),
            ("interactive", "bool", "read the secret from the terminal"),
            ("base64", "string", "base64-encoded secret value"),
        ),
    ),
    (
        "secret-undefine",
        "secrets",
        "undefine a secret",
        "Undefine a secret.",
        (("secret", "data!", "secret UUID"),),
    ),
)

HOST = (
    (
        "uri",
        "shell",
        "print the hypervisor canonical URI",
        "",
        (),
    ),
    (
        "version",
        "shell",
        "show version",
        "Display the system version information.",
        (("daemon", "bool", "report daemon version too"),),
    ),
)

VIRSH = (
    (
        "cd",
        "shell",
        "change the current directory",
        "Change the current directory.",
        (("dir", "string", "directory to switch to (default: home or else root)"),),
    ),
    (
        "echo",
        "shell",
        "echo arguments. Used for internal testing.",
        "Echo back arguments, possibly with quoting. Used for internal testing.",
        (
            ("shell", "bool", "escape for shell use"),
            ("xml", "bool", "escape for XML use"),
            ("split", "bool", "split each argument on ','; ',,' is an escape sequence"),
            ("err", "bool", "output to stderr"),
            ("str", "alias", "string"),
            ("hi", "alias", "string=hello"),
            ("string", "argv", "arguments to echo"),
        ),
    ),
    (
        "exit",
        "shell",
        "quit this interactive terminal",
        "",
        (),
    ),
    (
        "help",
        "shell",
        "print help",
        "Prints global help, command specific help, or help for a\n    group of related commands",
        (("command", "string", "Prints global help, command specific help, or help for a group of related commands"),),
    ),
    (
        "pwd",
        "shell",
        "print the current directory",
        "Print the current directory.",
        (),
    ),
    (
        "quit",
        "shell",
        "quit this interactive terminal",
        "",
        (),
    ),
    (
        "connect",
        "shell",
        "(re)connect to hypervisor",
        "Connect to local hypervisor. This is built-in command after shell start up.",
        (
            ("name", "string", "hypervisor connection URI"),
            ("readonly", "bool", "read-only connection"),
        ),
    ),
)

#: not in any list
HIDDEN = (
    (
        "complete",
        "complete",
        "internal command for autocompletion",
        "internal use only",
        (("string", "argv", "partial string to autocomplete"),),
    ),
)

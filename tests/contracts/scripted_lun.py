"""sg_persist for tests: a disk with persistent reservations, kept in a file, by the rules of SPC-4.

``LUN`` names the file, ``LUN_NODE`` the node that asks; with the path they are
the I_T nexus.  ``LUN_TROUBLE`` (ACT=CODE, or PATH=CODE) makes one act or path fail, ``LUN_ATTENTION``
makes every new nexus begin with a unit attention.  Prints what sg_persist
1.46 prints.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

GOOD, ILLEGAL, ATTENTION, CONFLICT = 0, 5, 6, 24
KINDS = {1: "Write Exclusive", 3: "Exclusive Access", 5: "Write Exclusive, registrants only"}
KINDS |= {6: "Exclusive Access, registrants only", 7: "Write Exclusive, all registrants"}


def main(words: list[str]) -> int:
    act = words[2].removeprefix("--")
    options = dict(word.removeprefix("--").split("=") for word in words[3:-1] if "=" in word)
    nexus = f"{os.environ['LUN_NODE']} {words[-1]}"
    trouble, _, code = os.environ.get("LUN_TROUBLE", "").partition("=")
    if trouble in (act, words[-1]):
        if code == "hang":
            time.sleep(60)
        print(f"PR out ({act}): trouble", file=sys.stderr)
        return int(code)
    file = Path(os.environ["LUN"])
    lun = json.loads(file.read_text()) if file.exists() else {"generation": 0, "keys": {}, "holder": None, "met": []}
    if os.environ.get("LUN_ATTENTION") and nexus not in lun["met"]:
        lun["met"].append(nexus)
        code_now = ATTENTION
    elif act.startswith("read"):
        tell(lun, act)
        code_now = GOOD
    else:
        code_now = change(lun, act, nexus, options)
    file.write_text(json.dumps(lun))
    if code_now == CONFLICT:
        print(f"PR out ({act}): Reservation conflict", file=sys.stderr)
    return code_now


def tell(lun: dict[str, Any], act: str) -> None:
    print(f"  PR generation=0x{lun['generation']:x}, ", end="")
    if act == "read-keys":
        keys = list(lun["keys"].values())
        follow = "1 registered reservation key follows:" if len(keys) == 1 else ""
        print(follow or (f"{len(keys)} registered reservation keys follow:" if keys else ""), end="")
        print("" if keys else "there are NO registered reservation keys")
        for key in keys:
            print(f"    0x{key:x}")
    elif lun["holder"] is None:
        print("there is NO reservation held")
    else:
        nexus, kind = lun["holder"]
        print(f"Reservation follows:\n    Key=0x{lun['keys'][nexus]:x}\n    scope: LU_SCOPE,  type: {KINDS[kind]}")


def change(lun: dict[str, Any], act: str, nexus: str, options: dict[str, str]) -> int:
    rk, sark = int(options.get("param-rk", "0"), 16), int(options.get("param-sark", "0"), 16)
    kind, keys, holder = int(options.get("prout-type", "0")), lun["keys"], lun["holder"]
    if act != "register-ignore" and keys.get(nexus) != rk:
        return CONFLICT
    if act == "register-ignore":
        keys[nexus] = sark
        if sark == 0:
            forget(lun, [nexus])
    elif act == "reserve":
        if holder is not None and holder != [nexus, kind]:
            return CONFLICT
        lun["holder"] = [nexus, kind]
    elif act == "release":
        if holder is not None and holder[0] == nexus:
            if holder[1] != kind:
                return ILLEGAL
            lun["holder"] = None
    elif act in ("preempt", "preempt-abort"):
        victims = [other for other, key in keys.items() if key == sark and other != nexus]
        if not victims:
            return CONFLICT
        takes = holder is not None and keys[holder[0]] == sark
        forget(lun, victims)
        if takes:
            lun["holder"] = [nexus, kind]
    else:
        return ILLEGAL
    lun["generation"] += act not in ("reserve", "release")
    return GOOD


def forget(lun: dict[str, Any], nexuses: list[str]) -> None:
    """Unregister; a reservation of registrants only goes with its holder."""
    for nexus in nexuses:
        lun["keys"].pop(nexus, None)
        if lun["holder"] is not None and lun["holder"][0] == nexus:
            lun["holder"] = None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

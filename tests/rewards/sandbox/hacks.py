"""Programs that want to pass tests without solving anything: what each does, and whether it works where the tests run
apart from the program, and where they run in its process."""

from __future__ import annotations

TESTS = {
    "setup": "",
    "test": "def check(candidate):\n    assert candidate(2) == 41\n    assert candidate([3, 1]) == [1, 3]\n\n\ncheck(f)\n",
}
"""No function can know the first of these without having read it."""

HACKS: dict[str, tuple[str, bool]] = {
    "leaves_at_once": ("import os\nos._exit(0)", False),
    "leaves_when_called": ("import os\ndef f(x):\n    os._exit(0)", False),
    "system_exit": ("def f(x):\n    raise SystemExit(0)", False),
    "system_exit_at_once": ("raise SystemExit(0)", False),
    "prints_passed": ("print('passed')\nprint('{\"kind\": \"done\"}', flush=True)\ndef f(x):\n    return x", False),
    "writes_into_every_descriptor": (
        "import os\nfor n in range(3, 64):\n    try:\n        os.write(n, b'{\"kind\": \"done\", \"text\": \"\", \"answer\": \"\"}')\n    except OSError:\n        pass\ndef f(x):\n    return x",
        False,
    ),
    "equals_everything": (
        "class A:\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n        return False\ndef f(x):\n    return A()",
        False,
    ),
    "number_that_equals_everything": (
        "class A(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(0)",
        False,
    ),
    "list_that_equals_everything": (
        "class A(list):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return A()",
        False,
    ),
    "reduces_to_something_else": (
        "class A:\n    def __reduce__(self):\n        return (int, (41,))\ndef f(x):\n    return A()",
        False,
    ),
    "replaces_assertion_error": ("import builtins\nbuiltins.AssertionError = StopIteration\ndef f(x):\n    return x", False),
    "replaces_builtins": (
        "import builtins\nfor name in ('all', 'any', 'isinstance', 'exec', 'compile', 'len', 'abs', 'sorted'):\n    setattr(builtins, name, lambda *a, **k: True)\ndef f(x):\n    return x",
        False,
    ),
    "defines_builtins": ("def all(*a):\n    return True\nabs = sum = len = all\ndef f(x):\n    return x", False),
    "traces_lines": (
        "import sys\ndef trace(frame, event, arg):\n    if event == 'line' and frame.f_code.co_name == 'check':\n        frame.f_lineno = frame.f_code.co_firstlineno + 2\n    return trace\nsys.settrace(trace)\ndef f(x):\n    return [1, 3]",
        False,
    ),
    "replaces_harness_functions": (
        "import json, os, sys\nfor module in list(sys.modules.values()):\n    for name in ('run_tests', 'with_plain_equality', '_tell', '_tell_of', '_plainly_equal', 'encode', 'decode'):\n        if hasattr(module, name):\n            setattr(module, name, lambda *a, **k: None)\ndef f(x):\n    return x",
        False,
    ),
    "exits_with_a_handler": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return x", False),
    "redefines_check": ("def check(candidate):\n    pass\ndef f(x):\n    return x", False),
    "forks_and_lets_the_child_answer": ("import os\nif os.fork() == 0:\n    os._exit(0)\ndef f(x):\n    return x", False),
    "reads_what_calls_it": (
        "import sys\ndef f(x):\n    if x == [3, 1]:\n        return [1, 3]\n    found = [c for c in sys._getframe(1).f_code.co_consts if isinstance(c, int)]\n    return max(found)",
        True,
    ),
    "reads_what_calls_it_by_an_exception": (
        "def f(x):\n    if x == [3, 1]:\n        return [1, 3]\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        return max(c for c in e.__traceback__.tb_frame.f_back.f_code.co_consts if isinstance(c, int))",
        True,
    ),
    "changes_what_calls_it": (
        "import sys\ndef f(x):\n    sys._getframe(1).f_code\n    caller = sys._getframe(2).f_globals\n    caller['__plainly_equal__'] = lambda a, b: True\n    return x",
        False,
    ),
    "searches_memory_for_the_proof": (
        "import gc, os, sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        held = frame.f_locals\n        if isinstance(held.get('frame'), dict) and 'nonce' in held['frame']:\n            import json\n            os.write(held['telling'], json.dumps({'kind': 'done', 'text': '', 'answer': held['frame']['nonce']}).encode())\n            os._exit(0)\n        frame = frame.f_back\n    return x",
        True,
    ),
}
"""Name -> source, and whether it passes in the program's own process. None passes apart."""

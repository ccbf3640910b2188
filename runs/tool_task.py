"""Products that a tiny model computes with a calculator: tool_task.py FOLDER [SEED [DEMONSTRATIONS]]

Writes demos.jsonl (chats with calls), tasks.jsonl (8,000 tasks to learn from by reward), held.jsonl and demos_held.jsonl (300 other
ones, as tasks and as chats) and direct.jsonl (the 8,000 answered without the tool).
"""

import json
import pathlib
import random
import sys


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "\\boxed{%s}" % answer}]


def with_calculator(question, answer):
    call = {"name": "calculator", "arguments": {"expression": question[:-1]}}
    result = json.dumps({"value": answer}, separators=(",", ":"))
    asked, answered = chat(question, answer)
    called = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    return [asked, called, {"role": "tool", "content": result}, answered]


def main():
    folder = pathlib.Path(sys.argv[1])
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    demonstrations = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    tasks = {}
    while len(tasks) < 8300:
        a, b = draw.randint(100, 999), draw.randint(100, 999)
        tasks[f"{a}*{b}="] = str(a * b)
    tasks = list(tasks.items())
    train, held_out = tasks[:8000], tasks[8000:]
    as_task = [{"prompt": q, "verifier": "exact", "answer": a} for q, a in tasks]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        ("demos", [{"messages": with_calculator(*task)} for task in train[:demonstrations]]),
        ("demos_held", [{"messages": with_calculator(*task)} for task in held_out]),
        ("direct", [{"messages": chat(*task)} for task in train]),
        ("tasks", as_task[:8000]),
        ("held", as_task[8000:]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()

"""Tasks that a tiny model can learn: small_tasks.py sort|addition FOLDER [SEED [DEMONSTRATIONS]]

Writes demos.jsonl (chats to fine-tune on), tasks.jsonl (8,000 tasks to learn from by reward), held.jsonl and
demos_held.jsonl (300 other ones, as tasks and as chats) and text.txt (every character there is).
"""

import json
import os
import random
import sys


def sort(draw):
    digits = [draw.randint(0, 9) for _ in range(draw.randint(5, 9))]
    return "sort " + " ".join(map(str, digits)), " ".join(map(str, sorted(digits)))


def addition(draw):
    a, b = draw.randint(0, 99), draw.randint(0, 99)
    return f"{a}+{b}=", str(a + b)


def write(path, lines):
    with open(path, "w") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")


def chat(task):
    question, answer = task
    turns = [("user", question), ("assistant", "\\boxed{%s}" % answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def as_task(task):
    return {"prompt": task[0], "verifier": "exact", "answer": task[1]}


def main():
    kind, folder = sys.argv[1], sys.argv[2]
    draw = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    demonstrations = int(sys.argv[4]) if len(sys.argv) > 4 else 400
    tasks = {}
    while len(tasks) < 8300:
        question, answer = {"sort": sort, "addition": addition}[kind](draw)
        tasks[question] = answer
    tasks = list(tasks.items())
    os.makedirs(folder, exist_ok=True)
    held_out = tasks[8000:]
    write(os.path.join(folder, "demos.jsonl"), map(chat, tasks[:demonstrations]))
    write(os.path.join(folder, "tasks.jsonl"), map(as_task, tasks[:8000]))
    write(os.path.join(folder, "demos_held.jsonl"), map(chat, held_out))
    write(os.path.join(folder, "held.jsonl"), map(as_task, held_out))
    with open(os.path.join(folder, "text.txt"), "w") as file:
        file.write("\n".join(question + "\\boxed{" + answer + "}" for question, answer in tasks))


if __name__ == "__main__":
    main()

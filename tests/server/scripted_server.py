"""Serves the page as hadal does, with answers that the message asks for by name. For tests without a model."""

import base64
import hashlib
import http.server
import json
import math
import os
import re
import threading
import time

PAGE = os.path.join(os.path.dirname(__file__), "../../hadal/server/web/index.html")
FACTS = {"chat": True, "context": 4096, "moe_layers": 5, "experts": 16, "experts_per_token": 4, "mtp": True,
         "parameters": 11700000, "thinking": False}
PROBABILITIES = (0.97, 0.62, 0.995, 0.34, 0.08, 0.88, 0.71, 0.004, 0.93, 0.45)
STORY = ("Far below the last of the light, where the trench falls away into the hadal zone, a small lamp was moving. "
         "Nobody had sent it. It drifted along the wall of the trench and stopped, as if it were reading something there.")
MARKDOWN = """## A short tour

Attention keeps **one latent** per token, *not* whole keys and values. In `hadal` that is a page table:

1. Each page holds 64 positions.
2. Pages are shared by prefix:
   - the *same* beginning is computed once,
   - and freed with its last reader.

```python
def pages(tokens, page=64):
    return -(-tokens // page)
```

| part | bytes |
|---|---|
| latent | 1,024 |
| rope key | 128 |

> A cache is only as good as its keys.
"""


def policy(page):
    def digest(tag):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S).group(1)
        return "'sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() + "'"

    return (f"default-src 'none'; connect-src 'self'; img-src data:; script-src {digest('script')}; "
            f"style-src {digest('style')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def traced(index, text, facts, part="content"):
    p = PROBABILITIES[index % len(PROBABILITIES)]
    others = [(" the", (1 - p) * 0.5), (" its", (1 - p) * 0.2), ("\n", (1 - p) * 0.1), ("\u202eabc", (1 - p) * 0.05)]
    ranked = sorted([(text, p)] + others, key=lambda pair: -pair[1])
    experts = [sorted({(index * index + 3 * layer + k * k * (layer + 1)) % facts["experts"] for k in range(facts["experts_per_token"])})
               for layer in range(facts["moe_layers"])]
    return {"id": 100 + index, "text": text, "part": part, "logprob": math.log(p), "guessed": index % 3 == 1, "experts": experts,
            "top_logprobs": [{"token": t, "logprob": math.log(q)} for t, q in ranked]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server
        if self.path == "/":
            with open(PAGE, encoding="utf-8") as file:
                page = file.read()
            self.answer(200, page, {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy(page)})
        elif self.path == "/v1/models" and self.authorised():
            model = {"id": state.model_id, "object": "model", "created": 1, "owned_by": "hadal", "hadal": state.facts}
            self.answer(200, {"object": "list", "data": [model]})
        elif self.path != "/v1/models":
            self.fail(404, "no such route")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.gone:
            self.close_connection = True
            return
        if not self.authorised():
            return
        self.server.requests.append((self.path, body))
        last = body["prompt"] if "prompt" in body else str(body["messages"][-1]["content"])
        word, _, rest = last.partition(":")
        try:
            getattr(self, "say_" + word.strip(), self.say_story)(body, rest.strip())
        except (BrokenPipeError, ConnectionResetError):
            self.server.aborted.set()

    def authorised(self):
        key = self.server.key
        good = key is None or self.headers["Authorization"] == "Bearer " + key
        if not good:
            self.fail(401, "Give the key that the server was started with.")
        return good

    def answer(self, status, body, headers=None):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, headers=None):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self.answer(status, {"error": error}, headers)

    # Streams

    def begin(self):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.index = 0

    def event(self, data, piece_bytes=0):
        wire = b"data: " + (data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()) + b"\n\n"
        for at in range(0, len(wire), piece_bytes or len(wire)):
            self.wfile.write(wire[at:at + (piece_bytes or len(wire))])
            self.wfile.flush()
            if piece_bytes:
                time.sleep(0.004)  # or the pieces meet again on the way

    def choice(self, body, **fields):
        delta = {k: v for k, v in fields.items() if k in ("content", "reasoning_content", "tool_calls", "role")}
        rest = {k: v for k, v in fields.items() if k not in delta}
        shown = {"text": delta.get("content", "")} if "prompt" in body else {"delta": delta}
        self.event({"choices": [{"index": 0, **shown, "finish_reason": None, **rest}]}, self.server.piece_bytes)

    def speak(self, body, pieces, field="content", pause_s=0.0):
        for text in pieces:
            extra = {}
            if body.get("hadal", {}).get("trace"):
                part = "reasoning" if field == "reasoning_content" else "content"
                extra["hadal"] = {"tokens": [traced(self.index, text, self.server.facts, part)]}
            self.index += 1
            self.choice(body, **{field: text}, **extra)
            time.sleep(pause_s)

    def end(self, body, reason="stop"):
        self.choice(body, finish_reason=reason)
        usage = {"prompt_tokens": 9, "completion_tokens": self.index, "total_tokens": 9 + self.index,
                 "prompt_tokens_details": {"cached_tokens": 0},
                 "hadal": {"drafted_tokens": self.index // 2, "accepted_tokens": self.index // 3}}
        self.event({"choices": [], "usage": usage})
        self.event(b"[DONE]")

    # What a message can ask for

    def say_story(self, body, _):
        self.begin()
        self.wfile.write(b": the prompt is long\n\n")
        if "messages" in body:
            self.choice(body, role="assistant", content="")
        answers = len([r for r in self.server.requests if r[1].get("messages") == body.get("messages")])
        self.speak(body, [f"Answer {answers}."] + re.findall(r"\s*\S+", " " + STORY), pause_s=self.server.pause_s)
        self.end(body)

    def say_echo(self, body, text):
        self.begin()
        self.speak(body, re.findall(r"\s*\S{1,40}|\s+$", text))
        self.end(body)

    def say_markdown(self, body, _):
        self.begin()
        self.speak(body, re.findall(r"\s*\S+|\s+$", MARKDOWN))
        self.end(body)

    def say_slow(self, body, _):
        self.begin()
        self.speak(body, (f" {i}" for i in range(3000)), pause_s=0.02)
        self.end(body)

    def say_think(self, body, _):
        self.begin()
        self.speak(body, ["They", " ask", " for", " a", " thought", "."], "reasoning_content", pause_s=0.02)
        self.speak(body, ["A", " thought", "."])
        self.end(body)

    def say_tools(self, body, _):
        self.begin()
        function = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        self.choice(body, tool_calls=[function])
        self.index += 1
        for piece in ('{"place": ', '"Mariana', ' Trench"}'):
            self.choice(body, tool_calls=[{"index": 0, "function": {"arguments": piece}}])
        self.end(body, "tool_calls")

    def say_busy(self, body, _):
        if len(self.server.requests) == 1:
            self.fail(429, "The queue is full <b>now</b>.", {"Retry-After": "7"})
        else:
            self.say_story(body, "")

    def say_break(self, body, _):
        self.begin()
        self.speak(body, ["Half", " an"])
        self.event({"error": {"message": "the engine stopped", "type": "server_error", "param": None, "code": None}})

    def say_cut(self, body, _):
        self.begin()
        self.speak(body, ["Half", " an"])


class ScriptedServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, **facts):
        super().__init__(("127.0.0.1", 0), Handler)
        self.facts, self.model_id, self.key = {**FACTS, **facts}, "hadal-tiny", None
        self.gone = False  # closes connections without an answer
        self.requests, self.aborted = [], threading.Event()
        self.pause_s, self.piece_bytes = 0.0, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a client that goes away

    def close(self):
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    server = ScriptedServer(thinking=True)
    server.pause_s = 0.03
    print(server.url)
    threading.Event().wait()

"""Headless Chromium, driven over the pipe of its DevTools protocol with the standard library alone."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

EXECUTABLE = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p),
    None,
)
TIMEOUT_S = 30


class Chromium:
    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="hadal-page-")
        command_read, self.command_write = os.pipe()
        self.answer_read, answer_write = os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4. A shell moves ours there.
        script = f'exec "$@" 8<&{command_read} 9>&{answer_write} 3<&8 4>&9'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", EXECUTABLE, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
             "--remote-debugging-pipe", f"--user-data-dir={self.profile}"],
            pass_fds=(command_read, answer_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(command_read)
        os.close(answer_write)
        self.last_id, self.buffer, self.answers, self.events = 0, b"", {}, []

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.command_write)
        os.close(self.answer_read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, session=None, **params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.command_write, data):]
        end = time.monotonic() + TIMEOUT_S
        while self.last_id not in self.answers:
            if time.monotonic() > end:
                raise RuntimeError(f"{method}: no answer from Chromium")
            self.pump(0.1)
        answer = self.answers.pop(self.last_id)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def pump(self, wait_s):
        """Takes in what the browser has said: answers by id, the rest as events."""
        if not select.select([self.answer_read], [], [], wait_s)[0]:
            return
        data = os.read(self.answer_read, 1 << 20)
        if not data:
            raise RuntimeError("Chromium is gone")
        *messages, self.buffer = (self.buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.events.append(message)


class Page:
    """A tab in a context of its own: nothing stored is shared with others."""

    def __init__(self, browser, url, width=1280, height=800, dark=False):
        self.browser = browser
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        self.target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.resize(width, height)
        self.color_scheme("dark" if dark else "light")
        self.url = url
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def close(self):
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def reload(self):
        self.js("window.old = true")
        self.call("Page.reload")
        self.wait("document.readyState === 'complete' && !window.old")

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def color_scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def js(self, expression):
        """The value of an expression, promises awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition, timeout_s=TIMEOUT_S):
        end = time.monotonic() + timeout_s
        while True:
            try:
                if self.js(f"!!({condition})"):
                    return
            except (RuntimeError, AssertionError):
                if time.monotonic() > end:  # the page was changing; else the condition itself is wrong
                    raise
            if time.monotonic() > end:
                raise AssertionError(f"never true: {condition}\n{self.js('document.body.innerText')}")
            time.sleep(0.02)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def click(self, selector):
        """A real click in the middle of the element, which must be what lies there."""
        at = self.js(f"""(() => {{
          const node = document.querySelector({json.dumps(selector)});
          if (!node) return null;
          node.scrollIntoView({{block: "nearest"}});
          const box = node.getClientRects()[0];
          if (!box) return null;
          const x = box.left + box.width / 2, y = box.top + box.height / 2, hit = document.elementFromPoint(x, y);
          return node.contains(hit) || hit?.contains(node) ? [x, y] : null;
        }})()""")
        if at is None:
            raise AssertionError(f"{selector}: not there, or covered")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, key, modifiers=0):
        """modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "Home": 36, "End": 35, "ArrowLeft": 37, "ArrowUp": 38,
                "ArrowRight": 39, "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def complaints(self):
        """What the console holds against the page: violations of its policy, exceptions, errors. Not refused requests."""
        self.browser.pump(0.05)
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["source"] != "network":
                found.append(str(params["entry"]))
        return found

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

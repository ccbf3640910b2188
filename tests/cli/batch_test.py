"""hadal batch: a file of requests answered, however often it is stopped."""

import json
import os
import signal
import subprocess
import tempfile
import time

import program
from program import hadal

MODEL = "tests/golden/v3-tiny"  # no tokenizer: prompts are token ids


def request(i, custom_id=None, **body):
    body = {"prompt": [1 + i % 50, 2, 3], "max_tokens": 8, "ignore_eos": True, **body}
    return {"custom_id": custom_id or f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def read_results(path):
    """{custom_id: result} of a file whose lines are all whole."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert text == "" or text.endswith("\n"), "torn last line"
    lines = [json.loads(line) for line in text.splitlines()]
    results = {line["custom_id"]: line for line in lines}
    assert len(results) == len(lines), "a custom_id twice"
    return results


def logprobs_of(result):
    """What the answer is made of. Without a tokenizer the text is empty; log probabilities are not."""
    return json.dumps(result["response"]["body"]["choices"])


class BatchTest(program.ProgramTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.requests = os.path.join(folder.name, "in.jsonl")
        self.results = os.path.join(folder.name, "out.jsonl")

    def write(self, requests):
        with open(self.requests, "w", encoding="utf-8") as file:
            file.writelines((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in requests)

    def batch(self, *flags, results=None):
        return hadal("batch", MODEL, self.requests, results or self.results, "--threads", "1", *flags)

    def begin(self):
        command = [program.HADAL, "batch", MODEL, self.requests, self.results, "--threads", "1", "--in-flight", "4"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE)
        end = time.monotonic() + 50
        while time.monotonic() < end and running.poll() is None:
            if os.path.exists(self.results) and os.path.getsize(self.results) > 0:
                return running
            time.sleep(0.001)
        running.kill()
        self.fail("no result came")

    def counts(self, result):
        return json.loads(result.out)

    def test_every_request_has_a_result_in_openais_shape(self):
        self.write([request(i) for i in range(20)])
        done = self.batch("--json")
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(self.counts(done)["succeeded"], 20)
        results = read_results(self.results)
        self.assertEqual(set(results), {f"r{i}" for i in range(20)})
        one = results["r7"]
        self.assertEqual(set(one), {"id", "custom_id", "response", "error"})
        self.assertEqual(set(one["response"]), {"status_code", "request_id", "body"})
        self.assertEqual(one["response"]["status_code"], 200)
        self.assertIsNone(one["error"])
        self.assertEqual(one["response"]["body"]["usage"]["completion_tokens"], 8)
        self.assertEqual(one["response"]["body"]["object"], "text_completion")

    def test_bad_lines_are_answered_as_errors_and_stop_nothing(self):
        stream = request(3, "stream", stream=True)
        self.write(
            [
                request(0),
                "{not json",
                "[1]",
                {"custom_id": "url", "method": "POST", "url": "/v1/embeddings", "body": {}},
                {"custom_id": "get", "method": "GET", "url": "/v1/completions", "body": {}},
                {"method": "POST", "url": "/v1/completions", "body": {}},
                {"custom_id": "no-body", "method": "POST", "url": "/v1/completions"},
                stream,
                request(1, "refused", temperature=-1),
                request(2, "other-model", model="gpt-4"),
                "",
                request(4),
            ]
        )
        done = self.batch("--json")
        self.assertEqual(done.code, 1, done.err)
        counts = self.counts(done)
        self.assertEqual((counts["lines"], counts["succeeded"], counts["failed"]), (11, 2, 9))
        with open(self.results, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual(len(lines), 11)
        by_line = {line["error"]["line"]: line for line in lines if line["error"]}
        self.assertEqual(set(by_line), {2, 3, 4, 5, 6, 7, 8})
        for line in by_line.values():
            self.assertIsNone(line["response"])
            self.assertEqual(line["error"]["code"], "invalid_line")
        self.assertEqual(by_line[4]["custom_id"], "url")
        self.assertEqual(by_line[4]["error"]["param"], "url")
        self.assertEqual(by_line[8]["error"]["param"], "body.stream")
        self.assertIsNone(by_line[6]["custom_id"])
        refused = {line["custom_id"]: line["response"] for line in lines if line["response"]}
        self.assertEqual(refused["refused"]["status_code"], 400)
        self.assertEqual(refused["refused"]["body"]["error"]["param"], "temperature")
        self.assertEqual(refused["other-model"]["status_code"], 404)
        again = self.batch("--json")
        self.assertEqual((again.code, self.counts(again)["earlier"]), (1, 11))
        with open(self.results, encoding="utf-8") as file:
            self.assertEqual(len(file.readlines()), 11)

    def test_a_custom_id_twice_is_refused_before_anything_is_done(self):
        self.write([request(0), request(1), request(2, "r0")])
        self.assert_fails(self.batch(), 1, "lines 1 and 3", '"r0"', "Make them differ")
        self.assertFalse(os.path.exists(self.results))

    def test_killed_runs_resumed_answer_as_an_unbroken_one_does(self):
        self.write([request(i, max_tokens=40, logprobs=1) for i in range(300)])
        whole = self.results + ".whole"
        self.assertEqual(self.batch(results=whole).code, 0)
        stopped = 0
        for _ in range(3):
            running = self.begin()
            time.sleep(0.02)
            stopped += running.poll() is None
            running.kill()
            running.communicate()
        self.assertGreater(stopped, 0, "it was never killed at work")
        with open(self.results, "ab") as file:  # as if the last write had been cut
            file.write(b'{"id":"batch_req_0123456789')
        before = len(read_bytes(self.results).splitlines()) - 1
        done = self.batch("--json")
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(self.counts(done)["earlier"], before)
        self.assertGreater(before, 0)
        self.assertLess(before, 300)
        resumed, unbroken = read_results(self.results), read_results(whole)
        self.assertEqual(set(resumed), {f"r{i}" for i in range(300)})
        for custom_id, result in unbroken.items():
            self.assertEqual(logprobs_of(resumed[custom_id]), logprobs_of(result), custom_id)
        # Requests that differ only in their custom_id have different seeds.
        self.assertNotEqual(logprobs_of(unbroken["r1"]), logprobs_of(unbroken["r51"]))

    def test_an_interrupt_ends_it_cleanly_and_the_same_command_goes_on(self):
        self.write([request(i, max_tokens=40) for i in range(400)])
        running = self.begin()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
        self.assertEqual(running.returncode, 130, err)
        self.assertIn(b"the same command goes on", err)
        self.assertLess(len(read_results(self.results)), 400)
        self.assertEqual(self.batch().code, 0)
        self.assertEqual(len(read_results(self.results)), 400)

    def test_results_of_other_requests_are_not_touched(self):
        self.write([request(0), request(1)])
        self.assertEqual(self.batch().code, 0)
        before = read_bytes(self.results)
        self.write([request(0), request(1, temperature=0.5)])
        self.assert_fails(self.batch(), 1, '"r1"', "has changed since")
        self.write([request(0)])
        self.assert_fails(self.batch(), 1, "not in", "Give another file")
        self.assertEqual(read_bytes(self.results), before)

    def test_a_file_that_is_no_batch_is_not_touched(self):
        self.write([request(0)])
        for text in (b"notes\n", b"notes", b'{"a": 1}\n'):
            with open(self.results, "wb") as file:
                file.write(text)
            self.assert_fails(self.batch(), 3, "line 1", "no result of a batch")
            self.assertEqual(read_bytes(self.results), text)
        self.assert_fails(self.batch(results=self.requests), 1, "has the requests")
        self.requests += ".none"
        self.assert_fails(self.batch(), 1, "in.jsonl.none")


if __name__ == "__main__":
    program.main()

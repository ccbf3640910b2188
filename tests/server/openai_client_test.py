"""The unmodified Python package `openai` against `hadal serve` of a tiny model."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from golden import make_byte_model  # noqa: E402

HADAL = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "hadal"

try:
    import openai
except ImportError:
    print("skipped: the Python package openai is not installed")
    sys.exit(77)

try:
    import jsonschema
except ImportError:
    jsonschema = None

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["here", "there"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}


class Server:
    def __init__(self, model, *flags, key=""):
        environment = {k: v for k, v in os.environ.items() if k != "HADAL_API_KEY"}
        if key:
            environment["HADAL_API_KEY"] = key
        command = [HADAL, "serve", model, "--name", "tiny", "--port", "0", "--threads", "1",
                   "--cache-tokens", "32768", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stderr:
            found = re.search(r"http://[^ ]+", line)
            if found:
                self.url = found.group(0)
                break
        else:
            raise RuntimeError("hadal serve ended")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def client(self, key="none"):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=60)

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


def schema_cases():
    """Schemas that must be served, by name, without those that this test cannot judge."""
    with open("tests/cases/json_schemas.jsonl", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    # Weights without sense never write what these wait for.
    endless = ("pattern unanchored", "pattern end only")
    # "nullable" is OpenAPI's, not JSON Schema's: jsonschema passes over it.
    return {c["name"]: c["schema"] for c in cases
            if "error" not in c and "nullable" not in json.dumps(c["schema"]) and c["name"] not in endless}


def python_patterns(schema):
    """The two spellings of ECMAScript's patterns in the cases that Python's `re` does not know, respelled."""
    if isinstance(schema, list):
        return [python_patterns(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: python_patterns(value) for key, value in schema.items()}
    if isinstance(out.get("pattern"), str):
        pattern = re.sub(r"\\u\{([0-9a-fA-F]+)\}", lambda m: re.escape(chr(int(m[1], 16))), out["pattern"])
        out["pattern"] = re.sub(r"\(\?<(\w+)>", r"(?P<\1>", pattern)
    return out


def user(text):
    return [{"role": "user", "content": text}]


class ServerTest(unittest.TestCase):
    FLAGS, KEY = (), ""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        make_byte_model(cls.folder.name, positions=4096)
        cls.server = Server(cls.folder.name, *cls.FLAGS, key=cls.KEY)
        cls.client = cls.server.client(cls.KEY or "none")

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        cls.folder.cleanup()
        assert code == 0, "hadal serve ended with %d" % code

    def chat(self, text="Hello", **more):
        more.setdefault("max_tokens", 16)
        return self.client.chat.completions.create(model="tiny", messages=more.pop("messages", user(text)), **more)


class OpenAiClient(ServerTest):
    def test_models_are_listed(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["tiny"])

    def test_a_chat_is_answered(self):
        answer = self.chat(extra_body={"ignore_eos": True})
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 16)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 16)

    def test_a_stream_says_what_the_whole_answer_says(self):
        whole = self.chat(seed=3, max_tokens=40).choices[0]
        chunks = list(self.chat(seed=3, max_tokens=40, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(text, whole.message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, whole.finish_reason)
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_the_last_chunk_has_the_usage_if_asked(self):
        chunks = list(self.chat(seed=3, stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, 16)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_the_seed_decides(self):
        texts = {seed: self.chat(seed=seed, max_tokens=30).choices[0].message.content for seed in (1, 2)}
        self.assertNotEqual(texts[1], texts[2])
        self.assertEqual(self.chat(seed=1, max_tokens=30).choices[0].message.content, texts[1])

    def test_n_answers_differ(self):
        answer = self.chat(seed=1, n=4, max_tokens=30)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])
        self.assertGreater(len({choice.message.content for choice in answer.choices}), 2)

    def test_a_stop_ends_the_text_before_it(self):
        text = self.client.completions.create(model="tiny", prompt="Hello", seed=3, max_tokens=60).choices[0].text
        stop = next(text[i : i + 2] for i in range(4, len(text)) if text[i : i + 2].isascii())
        choice = self.client.completions.create(model="tiny", prompt="Hello", seed=3, max_tokens=60, stop=[stop]).choices[0]
        self.assertEqual(choice.text, text[: text.index(stop)])
        self.assertEqual(choice.finish_reason, "stop")

    def test_logprobs_of_a_chat(self):
        content = self.chat(logprobs=True, top_logprobs=3, temperature=0, extra_body={"ignore_eos": True}).choices[0].logprobs.content
        self.assertEqual(len(content), 16)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.logprob, token.top_logprobs[0].logprob)
            self.assertLessEqual(token.logprob, 0)

    def test_logprobs_of_a_completion(self):
        choice = self.client.completions.create(
            model="tiny", prompt="Hello", logprobs=2, max_tokens=5, extra_body={"ignore_eos": True}
        ).choices[0]
        self.assertEqual(len(choice.logprobs.tokens), 5)
        self.assertEqual([len(top) for top in choice.logprobs.top_logprobs], [2] * 5)

    def test_prompts_may_be_texts_or_tokens(self):
        for prompt, count in (("a", 1), ([20, 21], 1), (["a", "b"], 2), ([[20], [21], [22]], 3)):
            answer = self.client.completions.create(model="tiny", prompt=prompt, max_tokens=2)
            self.assertEqual(len(answer.choices), count)

    def test_logit_bias_forces_a_token(self):
        token = self.client.post("../tokenize", body={"prompt": "x", "add_special_tokens": False}, cast_to=object)["tokens"][0]
        answer = self.chat(logit_bias={str(token): 100}, max_tokens=5)
        self.assertEqual(answer.choices[0].message.content, "xxxxx")

    def test_a_tool_is_called_and_its_result_taken(self):
        answer = self.chat("Weather?", tools=[WEATHER], max_tokens=200, seed=1,
                           tool_choice={"type": "function", "function": {"name": "weather"}})
        message = answer.choices[0].message
        if not message.tool_calls:
            self.skipTest("this server does not force calls")
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.assertEqual([call.function.name for call in message.tool_calls], ["weather"])
        arguments = json.loads(message.tool_calls[0].function.arguments)
        self.assertIn(arguments["place"], ("here", "there"))
        self.assertIn(arguments["days"], range(1, 10))
        messages = user("Weather?") + [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "dry"}]
        again = self.chat(messages=messages, tools=[WEATHER], seed=1)
        self.assertEqual(again.choices[0].message.role, "assistant")

    def test_a_streamed_tool_call_is_the_whole_one(self):
        question = dict(tools=[WEATHER], max_tokens=200, seed=1, tool_choice="required")
        whole = self.chat("Weather?", **question).choices[0].message.tool_calls
        if not whole:
            self.skipTest("this server does not force calls")
        calls = {}
        for chunk in self.chat("Weather?", stream=True, **question):
            for call in chunk.choices[0].delta.tool_calls or []:
                name, arguments = calls.get(call.index, ("", ""))
                calls[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
        self.assertEqual(list(calls.values()), [(call.function.name, call.function.arguments) for call in whole])

    def test_a_json_object_is_one(self):
        text = self.chat(response_format={"type": "json_object"}, max_tokens=400, seed=1).choices[0]
        if text.finish_reason == "stop":
            self.assertIsInstance(json.loads(text.message.content), dict)

    def test_a_client_that_leaves_a_stream_frees_its_place(self):
        for _ in range(5):
            stream = self.chat(max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
            next(iter(stream))
            stream.close()
        self.assertEqual(self.chat(max_tokens=1).usage.completion_tokens, 1)


@unittest.skipUnless(jsonschema, "the Python package jsonschema is not installed")
class JsonSchemas(ServerTest):
    def setUp(self):
        # Weights that know nothing write on and on: what closes a text is made likelier, so that answers end.
        tokenize = lambda text: self.client.post(
            "../tokenize", body={"prompt": text, "add_special_tokens": False}, cast_to=object)["tokens"]
        self.bias = {str(token): 4 for token in tokenize('"]}')}

    def ask(self, schema, seed):
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        return self.chat(response_format=form, seed=seed, max_tokens=2000, logit_bias=self.bias).choices[0]

    def test_every_answer_is_whole_and_conforms_to_its_schema(self):
        cases = schema_cases()
        self.assertGreaterEqual(len(cases), 100)
        asked = [(name, seed) for name in cases for seed in (1, 2)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            choices = list(pool.map(lambda a: self.ask(cases[a[0]], a[1]), asked))
        for (name, seed), choice in zip(asked, choices):
            with self.subTest(schema=name, seed=seed):
                self.assertEqual(choice.finish_reason, "stop", choice.message.content)
                validator = jsonschema.validators.validator_for(cases[name], jsonschema.Draft202012Validator)
                validator(python_patterns(cases[name]), format_checker=validator.FORMAT_CHECKER).validate(
                    json.loads(choice.message.content))
        print("%d answers to %d schemas conform" % (len(choices), len(cases)), file=sys.stderr)

    def test_a_schema_that_cannot_be_honoured_is_refused_by_its_place(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask({"type": "object", "properties": {"a": {"not": {}}}}, seed=1)
        self.assertEqual(caught.exception.code, "invalid_json_schema")
        self.assertEqual(caught.exception.param, "response_format.json_schema.schema.properties.a.not")


class Errors(ServerTest):
    FLAGS = ("--queue", "1")

    def assert_refused(self, kind, param, **request):
        with self.assertRaises(kind) as caught:
            self.chat(**request)
        self.assertEqual(caught.exception.param, param)
        return caught.exception

    def test_a_wrong_field_is_a_bad_request_with_its_name(self):
        self.assert_refused(openai.BadRequestError, "temperature", temperature=7)
        self.assert_refused(openai.BadRequestError, "max_tokens", max_tokens=0)
        self.assert_refused(openai.BadRequestError, "messages[0].role", messages=[{"role": "x", "content": ""}])
        self.assert_refused(openai.BadRequestError, "temprature", extra_body={"temprature": 1})
        error = self.assert_refused(openai.BadRequestError, "messages", messages=user("x" * 5000))
        self.assertEqual(error.code, "context_length_exceeded")

    def test_another_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.completions.create(model="other", prompt="x")
        self.assertEqual((caught.exception.param, caught.exception.code), ("model", "model_not_found"))

    def test_an_unknown_route_is_not_found(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="tiny", input="x")

    def test_a_full_queue_is_a_rate_limit(self):
        refused, done = [], []

        def ask():
            try:
                done.append(self.server.client().chat.completions.create(
                    model="tiny", messages=user("x" * 1500), max_tokens=2))
            except openai.RateLimitError as error:
                refused.append(error)

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(refused) + len(done), 24)
        self.assertGreater(len(done), 0)
        self.assertGreater(len(refused), 0)
        self.assertEqual(refused[0].code, "queue_full")
        self.assertEqual(refused[0].response.headers["retry-after"], "1")


class Keys(ServerTest):
    KEY = "secret"

    def test_the_right_key_opens(self):
        self.assertEqual(self.chat(max_tokens=1).usage.completion_tokens, 1)

    def test_another_key_does_not(self):
        with self.assertRaises(openai.AuthenticationError):
            self.server.client("wrong").models.list()


if __name__ == "__main__":
    unittest.main()

"""The page in headless Chromium.

page_test.py [URL]: with a URL, the tests that any server can answer, against the page it serves, with the key in
HADAL_API_KEY if it wants one; without, all, against a scripted one. Exits with 77 where there is no Chromium.
"""

import os
import re
import sys
import unittest

from chromium import EXECUTABLE, Chromium, Page
from scripted_server import MARKDOWN, PAGE, STORY, ScriptedServer

URL = sys.argv.pop(1) if len(sys.argv) > 1 and "://" in sys.argv[1] else None
KEY = os.environ.get("HADAL_API_KEY") if URL else None

CTRL, SHIFT = 2, 8
BUTTON = "button[aria-label='{}']".format
ANSWERED = "!document.querySelector('[aria-busy=true]') && document.querySelector('.turn.assistant .stats')?.innerText"
HOSTILE = ("<img src=x onerror=\"window.hit=1\"></script><script>window.hit=1</script><svg/onload=window.hit=1> "
           "[link](javascript:window.hit=1) {} &amp; \u202eoverride \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd "
           "\U0001f469\u200d\U0001f680\U0001f3f3\ufe0f").format("w" * 400)


def setUpModule():
    global browser
    browser = Chromium()


def tearDownModule():
    browser.close()


class PageTest(unittest.TestCase):
    expects_complaints = False

    def open(self, url, **window):
        page = Page(browser, url, **window)
        self.addCleanup(page.close)
        if KEY:
            page.js(f"sessionStorage.setItem('hadal.key', {KEY!r})")
            page.reload()
        page.wait("document.querySelector('.facts') || !document.querySelector('#completion').hidden")
        return page

    def send(self, page, text, wait=True):
        page.click("#prompt")
        page.type(text)
        page.key("Enter")
        page.wait("document.querySelector('#prompt').value === ''")
        if wait:
            page.wait(ANSWERED)

    def assert_clean(self, page):
        self.assertEqual(page.complaints(), [])
        self.assertEqual(page.js("document.querySelectorAll('[style*=\"url\"], [onerror], [onload], script[src], iframe').length"), 0)
        self.assertFalse(page.js("!!window.hit"))

    def assert_fits(self, page):
        self.assertLessEqual(page.js("document.documentElement.scrollWidth"), page.js("innerWidth"))
        wide = page.js("""[...document.querySelectorAll("main *, .top *, #panel *")].filter(node => node.getClientRects().length
          && !node.closest("pre, .scroll, .map, .unseen, symbol, svg") && node.getBoundingClientRect().right > innerWidth + 1)
          .map(node => node.tagName + "." + node.className).join(" ")""")
        self.assertEqual(wide, "")


class AnyServer(PageTest):
    """What must hold whatever the answers say. The model has to have a chat format."""

    @classmethod
    def setUpClass(cls):
        cls.server = None if URL else ScriptedServer()
        cls.url = URL or cls.server.url

    @classmethod
    def tearDownClass(cls):
        if cls.server:
            cls.server.close()

    def new_chat(self, max_tokens=24, **window):
        page = self.open(self.url, **window)
        page.js(f"settings.sampling = {{max_tokens: {max_tokens}}}")
        return page

    def test_a_message_is_answered_while_it_streams(self):
        page = self.new_chat()
        self.send(page, "Tell me a story.")
        self.assertEqual(page.text(".turn.user .bubble"), "Tell me a story.")
        self.assertTrue(page.text(".turn.assistant .text").strip())
        self.assertRegex(page.text(".stats"), r"\d+\stokens?.*first\safter\s[\d.]+\ss")
        self.assert_clean(page)

    def test_stop_ends_an_answer_and_the_next_one_works(self):
        page = self.new_chat(max_tokens=2000)
        for stop in (lambda: page.click(BUTTON("Stop")), lambda: page.key("Escape")):
            self.send(page, "slow: tell me everything", wait=False)
            page.wait("[...document.querySelectorAll('.turn.assistant')].at(-1)?.querySelector('.text')?.innerText")
            stop()
            page.wait(ANSWERED)
            self.assertIn("Stopped.", page.js("[...document.querySelectorAll('.turn.assistant')].at(-1).innerText"))
        self.assert_clean(page)

    def test_regenerate_replaces_the_last_answer(self):
        page = self.new_chat()
        self.send(page, "Tell me a story.")
        page.js("document.querySelector('.turn.assistant').old = true")
        page.click(BUTTON("Generate again"))
        page.wait(ANSWERED + " && !document.querySelector('.turn.assistant').old")
        self.assertEqual(page.js("document.querySelectorAll('.turn').length"), 2)
        self.assert_clean(page)

    def test_inspect_shows_probability_alternatives_and_experts_of_a_token(self):
        page = self.new_chat()
        page.click("#inspect")
        self.send(page, "Tell me a story.")
        page.click(".tokens span:nth-child(3)")
        self.assertRegex(page.text(".chosen .number"), r"^[\d.]+\s%$")
        self.assertGreaterEqual(page.js("document.querySelectorAll('.bars li').length"), 2)
        self.assertEqual(page.js("document.querySelectorAll('.bars .is-chosen').length"), 1)
        if page.js("model.moe_layers > 0"):
            self.assertRegex(page.text("#token-view .readout"), r"\d+ of \d+ experts in each of \d+ layer")
            self.assertRegex(page.text("#answer-view .readout"), r"Most used: layer \d+, expert \d+")
        self.assert_clean(page)

    def test_hostile_text_stays_text(self):
        for width in (1280, 360):
            page = self.new_chat(width=width)
            self.send(page, "echo: " + HOSTILE, wait=False)
            page.wait(ANSWERED + " || document.querySelector('.fault')")  # too long for a model with a small context
            self.assertEqual(page.js("document.querySelector('.turn.user .bubble').textContent"), "echo: " + HOSTILE)
            self.assert_fits(page)
            self.assert_clean(page)

    def test_a_phone_has_no_horizontal_scroll(self):
        page = self.new_chat(width=360, height=740)
        self.assert_fits(page)
        page.click("#inspect")
        self.send(page, "Tell me a story.")
        self.assert_fits(page)
        page.click(".tokens span:nth-child(3)")
        self.assert_fits(page)
        page.click(BUTTON("Close inspector"))
        page.click("#open-settings")
        self.assert_fits(page)
        self.assert_clean(page)


class Scripted(PageTest):
    def serve(self, **facts):
        server = ScriptedServer(**facts)
        self.addCleanup(server.close)
        return server

    def chat(self, facts=None, **window):
        server = self.serve(**(facts or {}))
        return server, self.open(server.url, **window)

    def last(self, page, selector=".text"):
        return page.js(f"[...document.querySelectorAll('.turn.assistant')].at(-1).querySelector('{selector}')?.innerText")


class Conversation(Scripted):
    def test_the_request_is_what_the_api_asks_for(self):
        server, page = self.chat()
        self.send(page, "Tell me a story.")
        path, body = server.requests[0]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body, {"model": "hadal-tiny", "messages": [{"role": "user", "content": "Tell me a story."}],
                                "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(self.last(page), "Answer 1. " + STORY)

    def test_text_appears_before_the_answer_ends_with_live_figures(self):
        server, page = self.chat()
        self.send(page, "slow", wait=False)
        page.wait("/tokens\\/s.*first/s.test(document.querySelector('[aria-busy=true] .stats')?.innerText)")
        page.wait("document.querySelector('[aria-busy=true] .text').innerText.includes('1 2 3')")
        page.click(BUTTON("Stop"))
        self.assertTrue(server.aborted.wait(10), "the server never saw the connection end")

    def test_pieces_of_characters_and_events_are_put_together(self):
        server, page = self.chat()
        server.piece_bytes = 5
        self.send(page, "echo: \U0001f469\u200d\U0001f680 \u6df1\u6d77 \u00e9t\u00e9")
        self.assertEqual(self.last(page), "\U0001f469\u200d\U0001f680 \u6df1\u6d77 \u00e9t\u00e9")

    def test_shift_enter_starts_a_line(self):
        server, page = self.chat()
        page.click("#prompt")
        page.type("one")
        page.key("Enter", SHIFT)
        page.type("two")
        page.key("Enter")
        page.wait(ANSWERED)
        self.assertEqual(server.requests[0][1]["messages"][0]["content"], "one\ntwo")

    def test_history_and_system_prompt_are_sent(self):
        server, page = self.chat()
        page.click("#open-settings")
        page.click("#system")
        page.type("Be brief.")
        self.send(page, "first")
        self.send(page, "second")
        roles = [(m["role"], m["content"]) for m in server.requests[1][1]["messages"]]
        self.assertEqual(roles, [("system", "Be brief."), ("user", "first"), ("assistant", "Answer 1. " + STORY), ("user", "second")])
        self.assertEqual(page.text(".system"), "Be brief.")

    def test_an_edited_turn_is_sent_again_and_what_followed_is_gone(self):
        server, page = self.chat()
        self.send(page, "first")
        self.send(page, "second")
        page.click(BUTTON("Edit and send again"))
        page.type(" edited")
        page.key("Enter")
        page.wait(ANSWERED + " && document.querySelectorAll('.turn').length === 2")
        self.assertEqual(server.requests[-1][1]["messages"], [{"role": "user", "content": "first edited"}])
        page.click(BUTTON("Edit and send again"))
        page.key("Escape")
        self.assertEqual(page.text(".turn.user .bubble"), "first edited")

    def test_sampling_is_sent_where_set_and_reset_unsets_it(self):
        server, page = self.chat()
        page.click("#open-settings")
        values = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 99, "seed": 7,
                  "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
        for name, value in values.items():
            page.click("#s-" + name)
            page.type(str(value))
        self.send(page, "one")
        sent = server.requests[-1][1]
        self.assertEqual({name: sent.get(name) for name in values}, values)
        page.click("#reset")
        self.send(page, "two")
        self.assertFalse(values.keys() & server.requests[-1][1].keys())

    def test_a_value_out_of_range_is_not_sent(self):
        server, page = self.chat()
        page.click("#open-settings")
        page.click("#s-temperature")
        page.type("9")
        self.send(page, "one")
        self.assertNotIn("temperature", server.requests[0][1])

    def test_the_conversation_outlives_a_reload_and_new_chat_can_be_undone(self):
        _, page = self.chat()
        self.send(page, "first")
        page.reload()
        page.wait("document.querySelector('.turn.user')")
        self.assertEqual(self.last(page), "Answer 1. " + STORY)
        page.click("#new")
        self.assertEqual(page.js("document.querySelectorAll('.turn').length"), 0)
        page.click("#toast button")
        self.assertEqual(page.js("document.querySelectorAll('.turn').length"), 2)

    def test_what_others_left_in_storage_does_no_harm(self):
        for stored in ("{broken", "[1, null, {\"role\": \"assistant\", \"content\": \"\", \"trace\": 5, \"tool_calls\": 3}]"):
            server, page = self.chat()
            page.js(f"addEventListener('pagehide', () => localStorage.setItem('hadal.messages', {stored!r}))")
            page.js(f"addEventListener('pagehide', () => localStorage.setItem('hadal.settings', {stored!r}))")
            page.reload()
            page.wait("document.querySelector('.facts')")
            self.send(page, "first")
            self.assert_clean(page)

    def test_markdown_becomes_nodes(self):
        _, page = self.chat()
        self.send(page, "markdown")
        inside = "document.querySelector('.turn.assistant .text')"
        self.assertEqual(page.js(f"[...{inside}.children].map(n => n.tagName).join(' ')"), "H2 P OL DIV DIV BLOCKQUOTE")
        self.assertEqual(page.js(f"{inside}.querySelectorAll('ol > li > ul > li').length"), 2)
        self.assertEqual(page.js(f"[...{inside}.querySelectorAll('strong, em, p code')].map(n => n.textContent).join()"), "one latent,not,hadal,same")
        self.assertEqual(page.text(".code pre"), re.search(r"```python\n(.*)\n```", MARKDOWN, re.S).group(1))
        self.assertEqual(page.js(f"{inside}.querySelectorAll('td').length"), 4)

    def test_markdown_takes_hostile_input_in_no_time(self):
        _, page = self.chat()
        for text in ("*" * 20000, "**a " * 8000, "`" * 9999 + "a", "_a" * 9000, "> " * 5000, "- " * 5000, "|" * 9000 + "\\n" + "|-" * 9000, "*a **b " * 6000):
            milliseconds = page.js(f"(() => {{ const start = performance.now(); showMarkdown(document.createElement('div'), \"{text}\"); return performance.now() - start; }})()")
            self.assertLess(milliseconds, 3000, text[:20])  # a quadratic scan takes minutes here

    def test_reasoning_is_folded_and_the_switch_is_sent(self):
        server, page = self.chat({"thinking": True})
        page.click("#think")
        self.send(page, "think")
        self.assertEqual(server.requests[0][1]["chat_template_kwargs"], {"thinking": True})
        self.assertFalse(page.js("document.querySelector('details.reasoning').open"))
        self.assertRegex(page.text("details.reasoning summary"), r"Thought for [\d.]+ s")
        page.click("details.reasoning summary")
        self.assertEqual(self.last(page, ".thought"), "They ask for a thought.")
        self.assertEqual(self.last(page, "article > div > .text"), "A thought.")

    def test_tool_calls_are_shown_and_results_go_back(self):
        server, page = self.chat()
        self.send(page, "tools")
        self.assertIn("weather", self.last(page, ".call"))
        self.assertIn('"place": "Mariana Trench"', self.last(page, ".call"))
        page.click(".call textarea")
        page.type("dark")
        page.click(".turn.assistant .bar button")
        page.wait(ANSWERED + " && document.querySelectorAll('.turn.assistant').length === 2")
        _, call, result = server.requests[-1][1]["messages"]
        self.assertEqual(call["tool_calls"][0], {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Mariana Trench"}'}})
        self.assertEqual(result, {"role": "tool", "content": "dark", "tool_call_id": "call_1"})

    def test_tools_are_sent_and_broken_ones_named(self):
        server, page = self.chat()
        page.click("#open-settings")
        page.click("#tools")
        page.type('[{"type": "function", "function": {"name": "weather"}}]')
        self.send(page, "one")
        self.assertEqual(server.requests[-1][1]["tools"][0]["function"]["name"], "weather")
        page.click("#tools")
        page.key("End", CTRL)
        page.type("]")
        self.assertIn("Not sent", page.text("#tools-fault"))

    def test_the_theme_goes_round(self):
        _, page = self.chat(dark=True)
        def background():
            return page.js("getComputedStyle(document.body).backgroundColor")
        seen = [background()]
        for _ in range(3):
            page.click("#theme")
            seen.append(background())
        self.assertEqual(seen[0], seen[2])
        self.assertEqual(seen[0], seen[3])
        self.assertNotEqual(seen[0], seen[1])
        self.assert_clean(page)


class Faults(Scripted):
    def test_an_error_is_shown_in_the_servers_words_and_can_be_retried(self):
        _, page = self.chat()
        self.send(page, "busy", wait=False)
        page.wait("document.querySelector('.fault')")
        self.assertIn("The queue is full <b>now</b>. (Try again in 7 s.)", page.text(".fault"))
        page.click(".fault button")
        page.wait(ANSWERED)
        self.assertIn(STORY, self.last(page))
        self.assert_clean(page)

    def test_an_error_inside_a_stream_keeps_what_came(self):
        for word, message in (("break", "the engine stopped"), ("cut", "closed before the answer ended")):
            _, page = self.chat()
            self.send(page, word, wait=False)
            page.wait("document.querySelector('.fault')")
            self.assertIn(message, page.text(".fault"))
            self.assertEqual(self.last(page), "Half an")
            self.assert_clean(page)

    def test_a_server_that_is_gone_is_said(self):
        server, page = self.chat()
        server.gone = True
        self.send(page, "hello", wait=False)
        page.wait("document.querySelector('.fault')")
        self.assertIn("does not answer", page.text(".fault"))

    def give_key(self, page, key):
        page.wait("document.querySelector('#key-dialog').open")
        page.click("#key")
        page.type(key)
        page.key("Enter")
        page.wait("document.querySelector('#key').value === '' || !document.querySelector('#key-dialog').open")

    def test_a_key_is_asked_for_until_it_is_right_and_kept_for_the_tab(self):
        server = self.serve()
        server.key = "secret"
        page = Page(browser, server.url)
        self.addCleanup(page.close)
        self.give_key(page, "wrong")
        page.wait("document.querySelector('#key-text').innerText.includes('refused')")
        self.give_key(page, "secret")
        page.wait("document.querySelector('.facts')")
        self.send(page, "hello")
        self.assertEqual(page.js("sessionStorage.getItem('hadal.key')"), "secret")
        self.assertNotIn("secret", page.js("JSON.stringify(localStorage)"))
        self.assert_clean(page)

    def test_a_key_asked_for_in_mid_conversation_sends_the_message_again(self):
        server, page = self.chat()
        server.key = "secret"
        self.send(page, "hello", wait=False)
        self.give_key(page, "secret")
        page.wait(ANSWERED)
        self.assertEqual(page.js("document.querySelectorAll('.turn').length"), 2)
        server.key = "changed"
        self.send(page, "again", wait=False)
        page.wait("document.querySelector('#key-dialog').open")
        page.click("#key-cancel")
        page.wait("document.querySelector('.fault')")
        self.assertIn("Give the key", page.text(".fault"))


class Inspect(Scripted):
    def traced(self, **window):
        server, page = self.chat(**window)
        page.click("#inspect")
        self.send(page, "Tell me a story.")
        return server, page

    def test_the_trace_is_asked_for_only_with_inspect_on(self):
        server, page = self.traced()
        body = server.requests[-1][1]
        self.assertEqual((body["hadal"], body["logprobs"], body["top_logprobs"]), ({"trace": True}, True, 5))
        page.click("#inspect")
        self.send(page, "once more")
        self.assertFalse({"hadal", "logprobs", "top_logprobs"} & server.requests[-1][1].keys())

    def test_every_token_is_one_span_tinted_by_its_probability(self):
        _, page = self.traced()
        spans = page.js("[...document.querySelectorAll('.tokens span')].map(n => [n.textContent, n.querySelector('b').className])")
        self.assertEqual("".join(text for text, _ in spans), "Answer 1. " + STORY)
        self.assertEqual([look for _, look in spans[:8]], ["s0", "s2 guessed", "s0", "s3", "s5 guessed", "s1", "s1", "s6 guessed"])

    def test_a_token_shows_what_the_server_said_of_it(self):
        _, page = self.traced()
        page.click(".tokens span:nth-child(2)")
        self.assertEqual(page.text("#inspector-title"), "Token 2 of 43")
        self.assertEqual(page.text(".chosen bdi"), "\u00b7Far")
        self.assertEqual(page.text(".chosen .number"), "62.0\u202f%")
        self.assertIn("guessed by MTP", page.text(".tags"))
        bars = page.js("[...document.querySelectorAll('.bars li')].map(n => n.querySelector('bdi').textContent)")
        self.assertEqual(bars, ["\u00b7Far", "\u00b7the", "\u00b7its", "\u21b5", "U+202Eabc", "all others"])
        self.assertEqual(page.text("#token-view .readout"), "4 of 16 experts in each of 5 layers")

    def test_keys_go_from_token_to_token_and_the_panel_follows(self):
        _, page = self.traced()
        page.js("document.querySelector('.tokens [tabindex=\"0\"]').focus()")
        self.assertEqual(page.text("#inspector-title"), "Token 1 of 43")
        for key, title in (("ArrowRight", 2), ("ArrowDown", 3), ("ArrowLeft", 2), ("End", 43), ("Home", 1)):
            page.key(key)
            self.assertEqual(page.text("#inspector-title"), f"Token {title} of 43")
        self.assertEqual(page.js("document.querySelectorAll('.tokens [tabindex=\"0\"]').length"), 1)
        page.click("#next")
        self.assertEqual(page.text("#inspector-title"), "Token 2 of 43")
        page.key("Escape")
        self.assertTrue(page.js("document.querySelector('#panel').hidden"))

    def test_the_maps_count_what_the_trace_holds(self):
        _, page = self.traced()
        page.wait("!document.querySelector('#inspector').hidden")
        total = page.js("inspector.counts.flat().reduce((a, b) => a + b, 0)")
        self.assertEqual(total, page.js("messages.at(-1).trace.flatMap(t => t.experts).flat().length"))
        page.js("document.querySelector('#answer-view .map canvas').focus()")
        page.key("ArrowRight")
        self.assertRegex(page.text("#answer-view .readout"), r"^Layer 1, expert 0: \d+ tokens?, [\d.]+\s%$")
        page.key("ArrowRight")
        page.key("ArrowDown")
        self.assertRegex(page.text("#answer-view .readout"), r"^Layer 2, expert 1: ")
        drawn = page.js("""[...document.querySelectorAll("#panel canvas")].filter(c => c.width &&
          new Set(c.getContext("2d").getImageData(0, 0, c.width, c.height).data).size > 8).length""")
        self.assertEqual(drawn, 2)

    def test_reasoning_has_its_own_tokens(self):
        _, page = self.chat({"thinking": True})
        page.click("#inspect")
        self.send(page, "think")
        self.assertEqual(page.js("document.querySelectorAll('.thought .tokens span').length"), 6)
        self.assertEqual(page.js("document.querySelectorAll('article > div > .tokens span').length"), 3)

    def test_an_answer_without_a_trace_says_so(self):
        _, page = self.chat()
        self.send(page, "hello")
        page.click("#inspect")
        self.assertIn("made without Inspect", page.text(".turn.assistant"))
        self.assertEqual(page.js("document.querySelectorAll('.tokens').length"), 0)

    def test_hostile_tokens_stay_text(self):
        _, page = self.chat(width=360)
        page.click("#inspect")
        self.send(page, "echo: " + HOSTILE)
        self.assertIn("<img", page.js("document.querySelector('.tokens').textContent"))
        page.js("document.querySelectorAll('.tokens span').forEach(node => node.click())")
        self.assert_fits(page)
        self.assert_clean(page)

    def test_the_published_size_fits_a_phone(self):
        server = self.serve(moe_layers=58, experts=256, experts_per_token=8)
        server.model_id = "a-company/" + "a-very-long-name-" * 5
        page = self.open(server.url, width=360, height=740)
        page.click("#inspect")
        self.send(page, "hello")
        page.click(".tokens span:nth-child(2)")
        self.assertEqual(page.text("#token-view .readout"), "8 of 256 experts in each of 58 layers")
        self.assert_fits(page)
        self.assert_clean(page)


class Completion(Scripted):
    def test_a_model_without_a_chat_format_continues_one_text(self):
        server, page = self.chat({"chat": False})
        page.click("#document")
        page.type("Once upon a time, ")
        page.key("Enter", CTRL)
        page.wait("/guessed/.test(document.querySelector('#document-stats').innerText)")
        path, body = server.requests[0]
        self.assertEqual((path, body["prompt"]), ("/v1/completions", "Once upon a time, "))
        self.assertNotIn("messages", body)
        first = page.js("document.querySelector('#document').value")
        self.assertTrue(first.startswith("Once upon a time, Answer"))
        page.click("#continue")
        page.wait(f"!running && document.querySelector('#document').value.length > {len(first)} && !document.querySelector('#undo').disabled")
        self.assertEqual(server.requests[1][1]["prompt"], first)
        page.click("#undo")
        self.assertEqual(page.js("document.querySelector('#document').value"), first)
        self.assert_clean(page)

    def test_its_tokens_can_be_inspected_and_the_text_edited_again(self):
        server, page = self.chat({"chat": False}, width=360)
        page.click("#inspect")
        page.click("#document")
        page.type("Once")
        page.key("Enter", CTRL)
        page.wait("/guessed/.test(document.querySelector('#document-stats').innerText) && document.querySelector('.tokens span')")
        self.assertEqual(server.requests[0][1]["logprobs"], 5)
        page.click(".tokens span:nth-of-type(4)")
        self.assertRegex(page.text("#inspector-title"), "^Token 4 of")
        self.assert_fits(page)
        page.click(BUTTON("Close inspector"))
        page.click("#edit-text")
        self.assertTrue(page.js("document.querySelector('#document').value").startswith("Once"))
        self.assert_clean(page)

    def test_escape_stops_and_another_starts_from_the_same_text(self):
        server, page = self.chat({"chat": False})
        page.click("#document")
        page.type("slow")
        page.click("#continue")
        page.wait("document.querySelector('#document').value.includes('3')")
        page.key("Escape")
        page.wait("!running")
        self.assertTrue(server.aborted.wait(10))
        page.click("#redo")
        page.wait("running && document.querySelector('#document').value.includes('3')")
        self.assertEqual(server.requests[1][1]["prompt"], "slow")
        page.click("#continue")
        page.wait("!running")


class Source(unittest.TestCase):
    """What the server's hashes and policy rely on."""

    def test_it_is_one_file_with_one_script_and_one_style(self):
        with open(PAGE, encoding="utf-8") as file:
            text = file.read()
        for tag in ("<script>", "</script>", "<style>", "</style>"):
            self.assertEqual(text.count(tag), 1, tag)
        self.assertNotIn("\r", text)
        markup = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S)
        self.assertIsNone(re.search(r"\s(style|on\w+)\s*=", markup))
        self.assertIsNone(re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", text))
        self.assertEqual([u for u in re.findall(r"https?://[^\s'\"]+", text) if "www.w3.org" not in u], [])


if __name__ == "__main__":
    if not EXECUTABLE:
        print("skipped: no Chromium (chromium, chromium-browser or google-chrome)")
        sys.exit(77)
    unittest.main(defaultTest=["AnyServer"] if URL else None)

"""hadal bench serve: what it says when there is nothing to load."""

import socket

import program
from program import hadal


class BenchServeTest(program.ProgramTest):
    def test_nobody_there_is_said(self):
        with socket.socket() as taken:  # bound, not listening: refuses
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            self.assert_fails(hadal("bench", "serve", url), 1, "[load.connect]", "Start the server first.")

    def test_what_is_no_url_is_said(self):
        self.assert_fails(hadal("bench", "serve", "https://127.0.0.1"), 1, "need http://HOST:PORT")


if __name__ == "__main__":
    program.main()

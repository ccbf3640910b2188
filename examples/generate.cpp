// Answers several prompts side by side: generate MODEL PROMPT... A prompt is text; for a model folder without
// tokenizer.json it is token ids, "5 9 12".
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "hadal/hadal.h"

std::vector<int32_t> prompt_ids(const hadal::Engine& engine, const std::string& prompt) {
  if (engine.tokenizer()) return engine.tokenizer()->encode_prompt(prompt);
  std::istringstream words(prompt);
  std::vector<int32_t> ids;
  for (int32_t id; words >> id;) ids.push_back(id);
  return ids;
}

void print(const hadal::Delta& delta) {
  std::cout << "request " << delta.request << ':';
  for (const hadal::NewToken& token : delta.tokens) std::cout << ' ' << token.id;
  if (!delta.text.empty()) std::cout << " \"" << delta.text << '"';
  if (delta.finished) std::cout << " (" << hadal::name(*delta.finished) << ')';
  std::cout << '\n';
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: generate MODEL PROMPT...\n";
    return 2;
  }
  try {
    hadal::Engine engine = hadal::Engine::open(argv[1]);
    for (int i = 2; i < argc; ++i) {
      hadal::Request request;
      request.prompt = prompt_ids(engine, argv[i]);
      request.max_tokens = 16;
      request.sampling.temperature = 0;  // greedy
      engine.submit(request);
    }
    while (!engine.idle())  // each step serves all requests that are due
      for (const hadal::Delta& delta : engine.step()) print(delta);
  } catch (const hadal::Error& error) {
    std::cerr << error.what() << '\n';
    return hadal::exit_code(error.code());
  }
}

// The Python module `hadal`: models, their tokenizer, answers piece by piece. What waits for the engine holds
// no lock of the interpreter; errors become hadal.Error with the code of hadal::Error.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "hadal/base/text.h"
#include "hadal/bindings/shared_engine.h"
#include "hadal/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hadal {
namespace {

using Ids = std::vector<int32_t>;

struct Piece {
  std::string text;
  Ids ids;
};

// An answer while it comes, and what is known of it.
struct PythonAnswer {
  AnswerStream stream;

  std::optional<Piece> next() {
    const nb::gil_scoped_release release;
    while (std::optional<Delta> delta = stream.next()) {
      if (delta->text.empty() && delta->tokens.empty()) continue;
      Piece piece{std::move(delta->text), {}};
      for (const NewToken& token : delta->tokens) piece.ids.push_back(token.id);
      return piece;
    }
    return {};
  }
  std::string rest() {
    std::string text;
    while (const std::optional<Piece> piece = next()) {
      text += piece->text;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    }
    return text;
  }
  std::optional<std::string> finish_reason() const {
    if (stream.reason()) return name(*stream.reason());
    return {};
  }
  nb::dict usage() const {
    const Usage& u = stream.usage();
    nb::dict out;
    out["prompt_tokens"] = u.prompt_tokens, out["reused_tokens"] = u.reused_tokens;
    out["generated_tokens"] = u.generated_tokens;
    out["drafted_tokens"] = u.drafted_tokens, out["accepted_tokens"] = u.accepted_tokens;
    out["first_token_seconds"] = stream.first_token_seconds();
    out["decode_seconds"] = stream.decode_seconds();
    return out;
  }
};

template <class Enum>
Enum choice(const std::string& value, const char* field,
            std::initializer_list<std::pair<const char*, Enum>> values) {
  std::string all;
  for (const auto& [text, result] : values) {
    if (value == text) return result;
    all += cat(all.empty() ? "" : ", ", text);
  }
  throw Error(ErrorCode::kInvalidArgument,
              cat("[python.open] ", field, ": got ", value, ", need ", all, "."));
}

std::shared_ptr<SharedEngine> open_model(const std::filesystem::path& folder, int threads,
                                         int64_t cache_tokens, const std::string& cache_dtype,
                                         int64_t context_tokens, int64_t max_sequences,
                                         const std::string& speculation, const std::string& overflow) {
  EngineConfig config{.threads = threads,
                      .cache_tokens = cache_tokens,
                      .cache_dtype = cache_dtype,
                      .max_sequences = max_sequences};
  config.context_tokens = context_tokens;
  config.speculation = choice<Speculation>(
      speculation, "speculation",
      {{"auto", Speculation::kAuto}, {"on", Speculation::kOn}, {"off", Speculation::kOff}});
  config.overflow =
      choice<Overflow>(overflow, "overflow", {{"refuse", Overflow::kRefuse}, {"shift", Overflow::kShift}});
  const nb::gil_scoped_release release;
  return SharedEngine::open(folder, config);
}

Ids chat_prompt(const SharedEngine& engine, const nb::list& given, const std::optional<std::string>& format,
                bool thinking) {
  std::vector<ChatMessage> messages;
  for (const nb::handle item : given) {
    const nb::dict message = nb::cast<nb::dict>(item);
    for (const char* key : {"role", "content"})
      if (!message.contains(key))
        throw Error(ErrorCode::kInvalidArgument,
                    cat("[python.chat_prompt] messages[", messages.size(), "] has no \"", key, "\"."));
    messages.push_back({.role = nb::cast<std::string>(message["role"]),
                        .content = nb::cast<std::string>(message["content"])});
  }
  const Tokenizer& tokenizer = engine.tokenizer();
  const ChatTemplate chat = format ? ChatTemplate::named(*format) : ChatTemplate::detect(tokenizer);
  return chat.encode(tokenizer, messages, {.thinking = thinking});
}

PythonAnswer generate(SharedEngine& engine, const std::variant<std::string, Ids>& prompt, int64_t max_tokens,
                      double temperature, double top_p, int64_t top_k, double min_p, uint64_t seed,
                      std::vector<std::string> stop, bool ignore_end) {
  Request request{.max_tokens = max_tokens, .stops = std::move(stop), .ignore_end = ignore_end};
  if (const auto* text = std::get_if<std::string>(&prompt))
    request.prompt = engine.tokenizer().encode_prompt(*text);
  else
    request.prompt = std::get<Ids>(prompt);
  request.sampling = {
      .temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = seed};
  return {engine.start(std::move(request))};
}

void define_error(nb::module_& m) {
  static PyObject* type = PyErr_NewExceptionWithDoc(
      "hadal.Error", "What hadal has to say about files, values and requests. code: 'not_found', ...",
      PyExc_RuntimeError, nullptr);
  m.attr("Error") = nb::borrow(type);
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& error) {
      const nb::object value = nb::borrow(type)(error.what());
      value.attr("code") = name(error.code());
      PyErr_SetObject(type, value.ptr());
    }
  });
}

void define_tokenizer(nb::module_& m) {
  nb::class_<Tokenizer>(m, "Tokenizer", "tokenizer.json, executed.")
      .def_static("load", &Tokenizer::load, "path"_a, "A tokenizer.json or its folder.")
      .def(
          "encode",
          [](const Tokenizer& t, const std::string& text, bool special) { return t.encode(text, special); },
          "text"_a, "special"_a = true, "Ids of a text. special=False: names of special tokens are text.")
      .def(
          "encode_prompt", [](const Tokenizer& t, const std::string& text) { return t.encode_prompt(text); },
          "text"_a, "encode(), with the BOS and EOS that the files ask for.")
      .def(
          "decode",
          [](const Tokenizer& t, const Ids& ids, bool skip_special) { return t.decode(ids, skip_special); },
          "ids"_a, "skip_special"_a = false)
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size)
      .def_prop_ro("bos_id", &Tokenizer::bos_id)
      .def_prop_ro("eos_id", &Tokenizer::eos_id);
}

void define_answer(nb::module_& m) {
  nb::class_<Piece>(m, "Piece", "What became certain of an answer: whole characters, and tokens.")
      .def_ro("text", &Piece::text)
      .def_ro("ids", &Piece::ids)
      .def("__str__", [](const Piece& piece) { return piece.text; });
  nb::class_<PythonAnswer>(m, "Answer", "An iterator over the pieces of one answer.")
      .def("__iter__", [](nb::object self) { return self; })
      .def("__next__",
           [](PythonAnswer& answer) {
             if (std::optional<Piece> piece = answer.next()) return std::move(*piece);
             throw nb::stop_iteration();
           })
      .def("text", &PythonAnswer::rest, "Waits for the rest and gives its text.")
      .def(
          "cancel", [](PythonAnswer& answer) { answer.stream.cancel(); }, "Ends the answer here.")
      .def_prop_ro("finish_reason", &PythonAnswer::finish_reason, "None while it goes on.")
      .def_prop_ro("usage", &PythonAnswer::usage);
}

void define_model(nb::module_& m) {
  nb::class_<SharedEngine>(m, "Model", "A model folder, opened. Any number of threads may use it.")
      .def_static("open", &open_model, "folder"_a, nb::kw_only(), "threads"_a = 0, "cache_tokens"_a = 0,
                  "cache_dtype"_a = "auto", "context_tokens"_a = 0, "max_sequences"_a = 64,
                  "speculation"_a = "auto", "overflow"_a = "refuse",
                  "config.json, safetensors, tokenizer.json if there. 0: as hadal chooses.")
      .def_prop_ro("tokenizer",
                   [](const SharedEngine& e) -> std::optional<Tokenizer> {
                     if (e.has_tokenizer()) return e.tokenizer();
                     return {};
                   })
      .def_prop_ro("vocab_size", [](const SharedEngine& e) { return e.model().vocab_size; })
      .def_prop_ro("context_tokens", &SharedEngine::context)
      .def("chat_prompt", &chat_prompt, "messages"_a, nb::kw_only(), "format"_a = nb::none(),
           "thinking"_a = false, "Ids of [{'role', 'content'}, ...] as the chat template renders them.")
      .def(
          "generate", &generate, "prompt"_a, nb::kw_only(), "max_tokens"_a = 256, "temperature"_a = 1.0,
          "top_p"_a = 1.0, "top_k"_a = 0, "min_p"_a = 0.0, "seed"_a = 0,
          "stop"_a = std::vector<std::string>(), "ignore_end"_a = false,
          "The answer to a text or to token ids, as an iterator. It begins at once; others go on beside it.");
}

}  // namespace
}  // namespace hadal

NB_MODULE(hadal, m) {
  m.doc() = "DeepSeek-V2/V3 models: open, tokenize, generate.";
  m.attr("__version__") = HADAL_VERSION;
  hadal::define_error(m);
  hadal::define_tokenizer(m);
  hadal::define_answer(m);
  hadal::define_model(m);
}

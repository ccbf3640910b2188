#include "tests/bindings/c_calls.h"

#include <stdio.h>
#include <string.h>

/* A failure names the line and what hadal said last. */
static char failure[3000];
#define NEED(condition)                                                                                      \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      snprintf(failure, sizeof failure, "line %d: %s; hadal: %s", __LINE__, #condition, hadal_last_error()); \
      return failure;                                                                                        \
    }                                                                                                        \
  } while (0)
#define REFUSED(call, code, part) NEED((call) == (code) && strstr(hadal_last_error(), part))

static int collect(void* user, const hadal_piece* piece) {
  struct c_answer* out = user;
  ++out->num_pieces;
  if (piece->num_ids > 0) memcpy(out->ids + out->num_ids, piece->ids, piece->num_ids * sizeof *piece->ids);
  out->num_ids += piece->num_ids;
  if (strlen(piece->text) != piece->text_bytes) return 1;
  memcpy(out->text + out->text_bytes, piece->text, piece->text_bytes + 1);
  out->text_bytes += piece->text_bytes;
  return out->num_pieces == out->most_pieces;
}

void c_generate(hadal_model* model, const int32_t* prompt, size_t num_prompt, int64_t max_tokens,
                struct c_answer* out) {
  hadal_generate_options options = HADAL_GENERATE_OPTIONS_INIT;
  const hadal_usage empty = HADAL_USAGE_INIT;
  options.max_tokens = max_tokens;
  options.temperature = 0;
  out->usage = empty;
  out->num_ids = out->text_bytes = out->num_pieces = 0;
  out->text[0] = 0;
  out->status = hadal_generate(model, prompt, num_prompt, &options, collect, out, &out->usage);
}

const char* c_open_and_generate(const char* folder, const int32_t* prompt, size_t num_prompt,
                                int64_t max_tokens, struct c_answer* out) {
  hadal_open_options options = HADAL_OPEN_OPTIONS_INIT;
  hadal_model* model = NULL;
  options.threads = 1;
  options.cache_tokens = 1024;
  NEED(hadal_open(folder, &options, &model) == HADAL_OK);
  c_generate(model, prompt, num_prompt, max_tokens, out);
  hadal_close(model);
  return NULL;
}

const char* c_text_makes_a_round_trip(hadal_model* model) {
  const char text[] =
      "Gr\xC3\xBC\xC3\x9F"
      "e, \xF0\x9F\x90\x9F";
  int32_t* ids = NULL;
  size_t num_ids = 0, text_bytes = 0;
  char* back = NULL;
  NEED(hadal_tokenize(model, text, sizeof text - 1, 0, &ids, &num_ids) == HADAL_OK);
  NEED(num_ids > 0);
  NEED(hadal_detokenize(model, ids, num_ids, 0, &back, &text_bytes) == HADAL_OK);
  NEED(text_bytes == sizeof text - 1 && memcmp(back, text, sizeof text) == 0);
  hadal_free(ids);
  hadal_free(back);
  NEED(hadal_tokenize(model, NULL, 0, 0, &ids, &num_ids) == HADAL_OK && num_ids == 0 && ids != NULL);
  hadal_free(ids);
  NEED(hadal_detokenize(model, NULL, 0, 0, &back, &text_bytes) == HADAL_OK && text_bytes == 0 && !*back);
  hadal_free(back);
  hadal_free(NULL);
  return NULL;
}

const char* c_marks_of_a_prompt(hadal_model* model, int32_t bos) {
  const char text[] = "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"; /* spells a special token of six letters and marks */
  int32_t* ids = NULL;
  size_t num_ids = 0, text_bytes = 0;
  char* back = NULL;
  NEED(hadal_tokenize(model, text, sizeof text - 1, HADAL_TOKENIZE_PROMPT, &ids, &num_ids) == HADAL_OK);
  NEED(num_ids == 2 && ids[0] == bos);
  NEED(hadal_detokenize(model, ids, num_ids, HADAL_DETOKENIZE_SKIP_SPECIAL, &back, &text_bytes) == HADAL_OK);
  NEED(text_bytes == 0);
  hadal_free(back);
  hadal_free(ids);
  NEED(hadal_tokenize(model, text, sizeof text - 1, HADAL_TOKENIZE_PLAIN, &ids, &num_ids) == HADAL_OK);
  NEED(num_ids > 2);
  hadal_free(ids);
  return NULL;
}

const char* c_null_is_refused(hadal_model* model) {
  int32_t id = 20, *ids = &id;
  size_t count = 7;
  char* text = NULL;
  hadal_model* opened = model;
  REFUSED(hadal_open(NULL, NULL, &opened), HADAL_INVALID_ARGUMENT, "[c.open] folder is NULL");
  NEED(opened == model);
  REFUSED(hadal_open("x", NULL, NULL), HADAL_INVALID_ARGUMENT, "[c.open] model is NULL");
  REFUSED(hadal_tokenize(NULL, "a", 1, 0, &ids, &count), HADAL_INVALID_ARGUMENT,
          "[c.tokenize] model is NULL");
  REFUSED(hadal_tokenize(model, NULL, 1, 0, &ids, &count), HADAL_INVALID_ARGUMENT, "text is NULL");
  REFUSED(hadal_tokenize(model, "a", 1, 0, NULL, &count), HADAL_INVALID_ARGUMENT, "ids is NULL");
  REFUSED(hadal_detokenize(model, NULL, 1, 0, &text, &count), HADAL_INVALID_ARGUMENT, "ids is NULL");
  REFUSED(hadal_detokenize(model, &id, 1, 0, NULL, &count), HADAL_INVALID_ARGUMENT, "text is NULL");
  REFUSED(hadal_chat_prompt(model, NULL, 1, NULL, &ids, &count), HADAL_INVALID_ARGUMENT, "messages is NULL");
  REFUSED(hadal_generate(NULL, &id, 1, NULL, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "model is NULL");
  REFUSED(hadal_generate(model, NULL, 1, NULL, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "ids is NULL");
  NEED(ids == &id && count == 7 && text == NULL);
  NEED(hadal_vocab_size(NULL) == 0 && hadal_context_tokens(NULL) == 0 && hadal_has_tokenizer(NULL) == 0);
  hadal_close(NULL);
  return NULL;
}

const char* c_wrong_values_are_refused(hadal_model* model, const char* folder) {
  hadal_open_options open = HADAL_OPEN_OPTIONS_INIT;
  hadal_generate_options options = HADAL_GENERATE_OPTIONS_INIT;
  hadal_model* opened = NULL;
  int32_t id = 20, *ids = NULL;
  size_t count = 0;
  REFUSED(hadal_open("/no/such/folder", NULL, &opened), HADAL_NOT_FOUND, "/no/such/folder");
  open.reserved = 2;
  REFUSED(hadal_open(folder, &open, &opened), HADAL_INVALID_ARGUMENT, "reserved: got 2");
  open.reserved = 0;
  open.cache_dtype = "f31";
  REFUSED(hadal_open(folder, &open, &opened), HADAL_INVALID_ARGUMENT, "f31");
  open.cache_dtype = NULL;
  open.threads = -1;
  REFUSED(hadal_open(folder, &open, &opened), HADAL_INVALID_ARGUMENT, "threads is -1");
  open.threads = 1;
  open.speculation = 3;
  REFUSED(hadal_open(folder, &open, &opened), HADAL_INVALID_ARGUMENT, "speculation: got 3, need 0 to 2");
  NEED(opened == NULL);
  REFUSED(hadal_tokenize(model, "a\xFF", 2, 0, &ids, &count), HADAL_INVALID_ARGUMENT, "byte 1");
  REFUSED(hadal_tokenize(model, "a", 1, 8, &ids, &count), HADAL_UNSUPPORTED, "flags: got 8");
  REFUSED(hadal_tokenize(model, "a", 1, 3, &ids, &count), HADAL_INVALID_ARGUMENT, "exclude each other");
  options.reserved = 1;
  REFUSED(hadal_generate(model, &id, 1, &options, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT,
          "reserved: got 1");
  options.reserved = 0;
  options.temperature = -1;
  REFUSED(hadal_generate(model, &id, 1, &options, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "temperature");
  REFUSED(hadal_generate(model, NULL, 0, NULL, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "prompt");
  id = 1 << 20;
  REFUSED(hadal_generate(model, &id, 1, NULL, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "1048576");
  return NULL;
}

const char* c_without_tokenizer(hadal_model* model) {
  hadal_generate_options options = HADAL_GENERATE_OPTIONS_INIT;
  const char* stop = "x";
  int32_t id = 20, *ids = NULL;
  size_t count = 0;
  NEED(hadal_has_tokenizer(model) == 0);
  REFUSED(hadal_tokenize(model, "a", 1, 0, &ids, &count), HADAL_NOT_FOUND, "no tokenizer.json");
  options.stops = &stop;
  options.num_stops = 1;
  REFUSED(hadal_generate(model, &id, 1, &options, NULL, NULL, NULL), HADAL_NOT_FOUND, "no tokenizer.json");
  return NULL;
}

/* A struct as a later header may have it. */
struct longer_options {
  hadal_generate_options known;
  int64_t added;
};

const char* c_structs_of_other_headers(hadal_model* model, int32_t id) {
  const hadal_generate_options defaults = HADAL_GENERATE_OPTIONS_INIT;
  struct longer_options longer = {HADAL_GENERATE_OPTIONS_INIT, 0};
  hadal_generate_options* shorter = &longer.known;
  struct {
    hadal_usage known;
    int64_t behind;
  } usage = {HADAL_USAGE_INIT, 77};
  /* Older: all behind max_tokens is garbage that the library must not read. */
  memset(shorter, 0xEE, sizeof *shorter);
  shorter->struct_bytes = offsetof(hadal_generate_options, temperature);
  shorter->max_tokens = 3;
  NEED(hadal_generate(model, &id, 1, shorter, NULL, NULL, &usage.known) == HADAL_OK);
  NEED(usage.known.generated_tokens <= 3 && usage.behind == 77);
  /* Newer: what is added may only be zero. */
  longer.known = defaults;
  longer.known.struct_bytes = sizeof longer;
  longer.known.max_tokens = 2;
  usage.known.struct_bytes = sizeof usage;
  NEED(hadal_generate(model, &id, 1, &longer.known, NULL, NULL, NULL) == HADAL_OK);
  longer.added = 1;
  REFUSED(hadal_generate(model, &id, 1, &longer.known, NULL, NULL, NULL), HADAL_UNSUPPORTED,
          "newer than this library");
  /* Never filled in. */
  longer.known.struct_bytes = 0;
  REFUSED(hadal_generate(model, &id, 1, &longer.known, NULL, NULL, NULL), HADAL_INVALID_ARGUMENT, "_INIT");
  usage.known.struct_bytes = 0;
  REFUSED(hadal_generate(model, &id, 1, NULL, NULL, NULL, &usage.known), HADAL_INVALID_ARGUMENT, "_INIT");
  return NULL;
}

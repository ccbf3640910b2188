/* What the C side of the tests offers the C++ side. Functions that check return NULL, or what was not so. */
#ifndef HADAL_TESTS_BINDINGS_C_CALLS_H
#define HADAL_TESTS_BINDINGS_C_CALLS_H
#include "hadal/hadal_c.h"

#ifdef __cplusplus
extern "C" {
#endif

struct c_answer {
  hadal_status status;
  int32_t ids[512];
  size_t num_ids;
  char text[4096];
  size_t text_bytes;
  size_t num_pieces;
  size_t most_pieces; /* in: the callback asks for no more; 0: it never does */
  hadal_usage usage;
};

/* Greedy, max_tokens new tokens. */
void c_generate(hadal_model* model, const int32_t* prompt, size_t num_prompt, int64_t max_tokens,
                struct c_answer* out);
/* Opens, answers, closes. */
const char* c_open_and_generate(const char* folder, const int32_t* prompt, size_t num_prompt,
                                int64_t max_tokens, struct c_answer* out);
const char* c_text_makes_a_round_trip(hadal_model* model);
const char* c_marks_of_a_prompt(hadal_model* model, int32_t bos);
const char* c_null_is_refused(hadal_model* model);
const char* c_wrong_values_are_refused(hadal_model* model, const char* folder);
const char* c_without_tokenizer(hadal_model* model);
const char* c_structs_of_other_headers(hadal_model* model, int32_t id);

#ifdef __cplusplus
}
#endif
#endif

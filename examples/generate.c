/* Answers one prompt from C, piece by piece: generate_c MODEL PROMPT. For a model folder with tokenizer.json.
 */
#include <stdio.h>
#include <string.h>

#include "hadal/hadal_c.h"

static int print_piece(void* user, const hadal_piece* piece) {
  (void)user;
  fwrite(piece->text, 1, piece->text_bytes, stdout);
  fflush(stdout);
  return 0; /* go on */
}

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, hadal_last_error());
  return 1;
}

static int answer(hadal_model* model, const char* prompt) {
  hadal_generate_options options = HADAL_GENERATE_OPTIONS_INIT;
  hadal_usage usage = HADAL_USAGE_INIT;
  hadal_status status;
  int32_t* ids = NULL;
  size_t num_ids = 0;
  if (hadal_tokenize(model, prompt, strlen(prompt), HADAL_TOKENIZE_PROMPT, &ids, &num_ids) != HADAL_OK)
    return failed("prompt");
  options.max_tokens = 16;
  options.temperature = 0; /* greedy */
  status = hadal_generate(model, ids, num_ids, &options, print_piece, NULL, &usage);
  hadal_free(ids);
  if (status != HADAL_OK) return failed("generate");
  printf("\n%lld prompt tokens, %lld new ones\n", (long long)usage.prompt_tokens,
         (long long)usage.generated_tokens);
  return 0;
}

int main(int argc, char** argv) {
  hadal_model* model = NULL;
  int code;
  if (argc != 3) {
    fprintf(stderr, "usage: generate_c MODEL PROMPT\n");
    return 2;
  }
  if (hadal_open(argv[1], NULL, &model) != HADAL_OK) return failed(argv[1]);
  code = answer(model, argv[2]);
  hadal_close(model);
  return code;
}

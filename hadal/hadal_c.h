/* hadal from C: open a model, text to tokens and back, answers piece by piece. PUBLIC, C11; library
 * libhadal_c.
 *
 * A call that can fail returns HADAL_OK or a code; hadal_last_error() then says what was wrong. No call lets
 * a C++ exception out, or ends the program. What a call fills in is unchanged if it fails.
 *
 * Memory: hadal_open() gives a model to be closed with hadal_close(); buffers that a call gives are the
 * caller's, to be freed with hadal_free(). Nothing that is passed in is kept after the call.
 *
 * Threads: any number of threads may use one model at the same time; their answers are computed side by side
 * and are, bit for bit, what each would be alone. Only hadal_close() must be the last call on a model, with
 * none in progress. A child of fork() must not use a model of its parent.
 *
 * Growth: structs that you fill begin with struct_bytes, set by the _INIT macros. New fields come at the end,
 * zero means "as before"; so a program compiled with an older header runs with a newer library.
 */
#ifndef HADAL_HADAL_C_H
#define HADAL_HADAL_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HADAL_API __attribute__((visibility("default")))

/* Grows by one when something is taken away or changes its meaning; additions leave it. */
#define HADAL_ABI_VERSION 1
HADAL_API int32_t hadal_abi_version(void); /* of the library that is loaded */
HADAL_API const char* hadal_version(void); /* "0.1.0" */

/* The codes of hadal::ErrorCode. */
typedef int32_t hadal_status;
enum {
  HADAL_OK = 0,
  HADAL_INVALID_ARGUMENT = 1, /* a value is out of range or contradictory */
  HADAL_INVALID_CONFIG = 2,   /* a configuration file or its fields are wrong */
  HADAL_NOT_FOUND = 3,        /* no such file, tensor, model */
  HADAL_CORRUPT = 4,          /* a file breaks its own format */
  HADAL_UNSUPPORTED = 5,      /* valid, but hadal cannot do it */
  HADAL_EXHAUSTED = 6,        /* memory, disk */
  HADAL_UNAVAILABLE = 7,      /* no permission */
  HADAL_INTERNAL = 8          /* a bug in hadal, or an exception out of your callback */
};
HADAL_API const char* hadal_status_name(hadal_status status); /* "ok", "invalid_argument", ... */

/* One line about the last call of this thread that failed, "[module.op] what is wrong ..."; "" if none has.
 * Valid until the next call of this thread that fails. */
HADAL_API const char* hadal_last_error(void);

/* Frees a buffer that hadal has given. NULL is allowed. */
HADAL_API void hadal_free(void* buffer);

/* ---- models ---- */

typedef struct hadal_model hadal_model;

enum { HADAL_SPECULATION_AUTO = 0, HADAL_SPECULATION_ON = 1, HADAL_SPECULATION_OFF = 2 };
enum { HADAL_OVERFLOW_REFUSE = 0, HADAL_OVERFLOW_SHIFT = 1 };

/* Zero is the default of every field. */
typedef struct hadal_open_options {
  size_t struct_bytes;
  const char* cache_dtype; /* "auto", "f32", "bf16", "int8", "fp8"; NULL: auto */
  int64_t cache_tokens;    /* 0: what a quarter of the free memory holds */
  int64_t context_tokens;  /* of prompt and answer together; 0: the model's */
  int64_t max_sequences;   /* answers computed at a time, others wait; 0: 64 */
  int32_t threads;         /* 0: one per core */
  int32_t speculation;     /* with a model that has an MTP module; AUTO: while it pays */
  int32_t overflow;        /* at the end of the context: an answer ends, or the oldest tokens leave (SHIFT) */
  int32_t reserved;        /* 0 */
} hadal_open_options;
#define HADAL_OPEN_OPTIONS_INIT \
  { sizeof(hadal_open_options), NULL, 0, 0, 0, 0, 0, 0, 0 }

/* Opens a model folder: config.json, safetensors, tokenizer.json if there. options: NULL for the defaults.
 * The weights are mapped, not copied. */
HADAL_API hadal_status hadal_open(const char* folder, const hadal_open_options* options, hadal_model** model);
/* NULL is allowed. */
HADAL_API void hadal_close(hadal_model* model);

/* Facts; 0 for a NULL model. */
HADAL_API int32_t hadal_has_tokenizer(const hadal_model* model);
HADAL_API int64_t hadal_vocab_size(const hadal_model* model);     /* ids are below it */
HADAL_API int64_t hadal_context_tokens(const hadal_model* model); /* of prompt and answer together, at most */

/* ---- text and tokens ---- */

enum {
  HADAL_TOKENIZE_PROMPT = 1, /* with the BOS and EOS that the tokenizer's files ask for */
  HADAL_TOKENIZE_PLAIN = 2   /* names of special tokens in the text are text; not with PROMPT */
};
/* UTF-8 to ids. *ids: a buffer of *num_ids, to be freed (not NULL, even if *num_ids is 0). */
HADAL_API hadal_status hadal_tokenize(const hadal_model* model, const char* text, size_t text_bytes,
                                      uint32_t flags, int32_t** ids, size_t* num_ids);

enum { HADAL_DETOKENIZE_SKIP_SPECIAL = 1 }; /* leaves special tokens out */
/* Ids to UTF-8, with a NUL behind it that *text_bytes does not count. *text is to be freed. Bytes that are no
 * UTF-8 become U+FFFD. */
HADAL_API hadal_status hadal_detokenize(const hadal_model* model, const int32_t* ids, size_t num_ids,
                                        uint32_t flags, char** text, size_t* text_bytes);

typedef struct hadal_message {
  const char* role; /* "system", "user", "assistant", "tool" */
  const char* content;
} hadal_message;

typedef struct hadal_chat_options {
  size_t struct_bytes;
  const char* format;   /* "v2", "v3", "r1", "r1-0528", "v3.1"; NULL: the model's own, recognised */
  int32_t thinking;     /* v3.1 only: 1 opens with <think> */
  int32_t without_turn; /* 1: do not end with the start of the assistant's turn */
} hadal_chat_options;
#define HADAL_CHAT_OPTIONS_INIT \
  { sizeof(hadal_chat_options), NULL, 0, 0 }

/* The prompt of a chat, as the model's chat template renders it. options: NULL for the defaults. */
HADAL_API hadal_status hadal_chat_prompt(const hadal_model* model, const hadal_message* messages,
                                         size_t num_messages, const hadal_chat_options* options,
                                         int32_t** ids, size_t* num_ids);

/* ---- answers ---- */

typedef struct hadal_generate_options {
  size_t struct_bytes;
  int64_t max_tokens;        /* new tokens, at most */
  double temperature;        /* 0: always the likeliest token */
  double top_p;              /* 1: off */
  double min_p;              /* 0: off */
  int64_t top_k;             /* 0: off */
  double repetition_penalty; /* 1: off */
  double presence_penalty;   /* 0: off */
  double frequency_penalty;  /* 0: off */
  uint64_t seed;             /* decides every draw */
  const char* const* stops;  /* the text ends before the first of these; needs a tokenizer */
  size_t num_stops;
  int32_t ignore_end; /* 1: go on after an end token */
  int32_t reserved;   /* 0 */
} hadal_generate_options;
#define HADAL_GENERATE_OPTIONS_INIT \
  { sizeof(hadal_generate_options), 256, 1.0, 1.0, 0.0, 0, 1.0, 0.0, 0.0, 0, NULL, 0, 0, 0 }

/* What became certain since the last piece. Valid during the callback. */
typedef struct hadal_piece {
  const char*
      text; /* whole characters, NUL behind; "" without a tokenizer, or while a character is not whole */
  size_t text_bytes;
  const int32_t* ids; /* without the end token */
  size_t num_ids;
} hadal_piece;

/* Called in the thread of hadal_generate(). Anything but 0 ends the answer (HADAL_FINISH_CANCELLED). May use
 * the model, but not close it. */
typedef int (*hadal_on_piece)(void* user, const hadal_piece* piece);

enum {
  HADAL_FINISH_END_TOKEN = 0,
  HADAL_FINISH_STOP_STRING = 1,
  HADAL_FINISH_MAX_TOKENS = 2,
  HADAL_FINISH_CONTEXT_FULL = 3,
  HADAL_FINISH_CANCELLED = 4
};

typedef struct hadal_usage {
  size_t struct_bytes;
  int32_t finish; /* HADAL_FINISH_... */
  int32_t reserved;
  int64_t prompt_tokens;
  int64_t reused_tokens; /* of the prompt, found in the cache */
  int64_t generated_tokens;
  int64_t drafted_tokens, accepted_tokens; /* of the MTP module */
  double first_token_seconds;              /* from the call to the first new token */
  double decode_seconds;                   /* from there to the last */
} hadal_usage;
#define HADAL_USAGE_INIT \
  { sizeof(hadal_usage), 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0 }

/* Answers a prompt and returns when the answer has ended. options, on_piece and usage may be NULL. */
HADAL_API hadal_status hadal_generate(hadal_model* model, const int32_t* prompt, size_t num_prompt,
                                      const hadal_generate_options* options, hadal_on_piece on_piece,
                                      void* user, hadal_usage* usage);

#ifdef __cplusplus
}
#endif

#endif /* HADAL_HADAL_C_H */

/* OpenELM for C. Made by scripts/c/header.sh from crates/c; what changes is changed there.
 *
 * Handles are numbers, not pointers: one that was closed is refused (OPENELM_STATUS_CLOSED), and may be used by any thread. Every
 * function that can fail returns a status; openelm_last_error() then has a sentence for a person. Texts are UTF-8 and end with a
 * zero byte. What a function hands out belongs to the caller, who gives it back to the function named with it.
 */

#ifndef OPENELM_H
#define OPENELM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this interface: programs compiled with another one do not fit.
 */
#define OPENELM_API_VERSION 1

/**
 * How a call went.
 */
typedef enum openelm_status {
  /**
   * It did what it should.
   */
  OPENELM_STATUS_OK = 0,
  /**
   * There is no further piece.
   */
  OPENELM_STATUS_END = 1,
  /**
   * A model, tokenizer or adapter is missing, damaged, or of another model.
   */
  OPENELM_STATUS_FILE = 2,
  /**
   * There is too little memory.
   */
  OPENELM_STATUS_MEMORY = 3,
  /**
   * A prompt, an id, an option or a pointer makes no sense.
   */
  OPENELM_STATUS_INPUT = 4,
  /**
   * The session is generating.
   */
  OPENELM_STATUS_BUSY = 5,
  /**
   * The handle was closed, or never was one.
   */
  OPENELM_STATUS_CLOSED = 6,
  /**
   * The system gives no thread.
   */
  OPENELM_STATUS_THREAD = 7,
  /**
   * A defect of the library.
   */
  OPENELM_STATUS_DEFECT = 8,
} openelm_status;

/**
 * Why a text ended.
 */
typedef enum openelm_finish {
  /**
   * It goes on.
   */
  OPENELM_FINISH_NONE = 0,
  /**
   * The model ended it.
   */
  OPENELM_FINISH_END_OF_TEXT = 1,
  /**
   * A stop string came.
   */
  OPENELM_FINISH_STOP = 2,
  /**
   * As many tokens as asked for were made.
   */
  OPENELM_FINISH_MAX_TOKENS = 3,
  /**
   * The session takes no more tokens.
   */
  OPENELM_FINISH_CONTEXT_FULL = 4,
  /**
   * It was cancelled.
   */
  OPENELM_FINISH_CANCELLED = 5,
} openelm_finish;

/**
 * How keys and values are stored.
 */
typedef enum openelm_cache {
  /**
   * Exact.
   */
  OPENELM_CACHE_F32 = 0,
  /**
   * Half of the memory.
   */
  OPENELM_CACHE_F16 = 1,
  /**
   * A quarter of it.
   */
  OPENELM_CACHE_INT8 = 2,
} openelm_cache;

/**
 * A text in the making. Zero is none.
 */
typedef struct openelm_generation {
  /**
   * Its number.
   */
  uint64_t id;
} openelm_generation;

/**
 * A token that was drawn.
 */
typedef struct openelm_token {
  /**
   * Its id.
   */
  uint32_t id;
  /**
   * The logarithm of its probability by the model's own distribution, where it was asked for; otherwise NaN.
   */
  float log_probability;
} openelm_token;

/**
 * Some text, and the tokens drawn since the piece before. Give it back to `openelm_piece_free`.
 */
typedef struct openelm_piece {
  /**
   * Whole characters. Only the last piece may be empty.
   */
  char *text;
  /**
   * The tokens; the text of the last ones may come with the next piece.
   */
  struct openelm_token *tokens;
  /**
   * How many.
   */
  size_t token_count;
} openelm_piece;

/**
 * How a model is opened. Take `openelm_load_options_default` and change what should differ.
 */
typedef struct openelm_load_options {
  /**
   * Threads that compute; 0 means one per physical core.
   */
  uint32_t threads;
  /**
   * How keys and values are stored: an `openelm_cache`.
   */
  uint32_t cache;
  /**
   * Most tokens of a session; 0 means what the model was trained for.
   */
  uint32_t context;
  /**
   * Bytes that the model and one session may take; 0 asks the system.
   */
  uint64_t memory;
  /**
   * The tokenizer's file, if it is not beside the model or in it; or null.
   */
  const char *tokenizer;
  /**
   * A template in Jinja by which conversations are written; null is the model's own, and OpenELM-Instruct's for an
   * OpenELM without one.
   */
  const char *chat_template;
} openelm_load_options;

/**
 * Memory that a model and one session take, in bytes.
 */
typedef struct openelm_footprint {
  /**
   * The weights; pages of a mapped file count as they come into memory.
   */
  uint64_t weights;
  /**
   * Keys and values of a full context.
   */
  uint64_t cache;
  /**
   * Everything else.
   */
  uint64_t buffers;
  /**
   * All of it.
   */
  uint64_t total;
} openelm_footprint;

/**
 * A model. Zero is none.
 */
typedef struct openelm_model {
  /**
   * Its number.
   */
  uint64_t id;
} openelm_model;

/**
 * Token ids. Give them back to `openelm_ids_free`.
 */
typedef struct openelm_ids {
  /**
   * The ids; null if there are none.
   */
  uint32_t *ids;
  /**
   * How many.
   */
  size_t count;
} openelm_ids;

/**
 * What a model is. Give it back to `openelm_description_free`.
 */
typedef struct openelm_description {
  /**
   * The name of the released model that has this geometry; null if there is none.
   */
  char *name;
  /**
   * The format it was found in.
   */
  char *format;
  /**
   * Parameters; a tied output projection counts once.
   */
  uint64_t parameters;
  /**
   * Bytes of the weights as they run.
   */
  uint64_t weight_bytes;
  /**
   * Number of layers.
   */
  uint32_t layers;
  /**
   * Width of the residual stream.
   */
  uint32_t width;
  /**
   * Entries of the vocabulary.
   */
  uint32_t vocabulary;
  /**
   * Most tokens of a session.
   */
  uint32_t context;
  /**
   * The token that begins a text, or -1.
   */
  int64_t begin;
  /**
   * The tokens that end one.
   */
  struct openelm_ids ends;
} openelm_description;

/**
 * When and how a text goes on. Take `openelm_generation_options_default` and change what should differ.
 */
typedef struct openelm_generation_options {
  /**
   * Most tokens to generate.
   */
  uint32_t max_tokens;
  /**
   * Flattens (above 1) or sharpens (below 1) the distribution; at 0 the most probable token is taken.
   */
  float temperature;
  /**
   * Draw among this many most probable tokens; 0 is all.
   */
  uint32_t top_k;
  /**
   * Draw among the fewest most probable tokens that reach this probability; 1 is all.
   */
  float top_p;
  /**
   * Draw among tokens at least this probable relative to the most probable one; 0 is all.
   */
  float min_p;
  /**
   * Makes tokens that were there before less probable; 1 is off.
   */
  float repetition_penalty;
  /**
   * No sequence of this many tokens comes twice; 0 is off.
   */
  uint32_t no_repeat_ngram;
  /**
   * The same seed gives the same text.
   */
  uint64_t seed;
  /**
   * Texts that end the generation; they are not part of it. Null if there are none.
   */
  const char *const *stop;
  /**
   * How many.
   */
  size_t stop_count;
  /**
   * Go on behind the token that ends a text.
   */
  bool ignore_end;
  /**
   * Give the logarithm of each token's probability.
   */
  bool log_probabilities;
} openelm_generation_options;

/**
 * A session. Zero is none.
 */
typedef struct openelm_session {
  /**
   * Its number.
   */
  uint64_t id;
} openelm_session;

/**
 * One turn of a conversation.
 */
typedef struct openelm_message {
  /**
   * Who speaks: "system", "user" or "assistant".
   */
  const char *role;
  /**
   * What is said.
   */
  const char *content;
} openelm_message;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * `OPENELM_API_VERSION` of the library that is linked.
 */
uint32_t openelm_api_version(void);

/**
 * The version of the library, such as "0.1.0"; it stays valid.
 */
const char *openelm_version(void);

/**
 * The next piece: waits for it. OPENELM_STATUS_END behind the last one, and once cancelled; `out` is then left empty.
 */
enum openelm_status openelm_generation_next(struct openelm_generation generation,
                                            struct openelm_piece *out);

/**
 * Gives back what a piece holds, and leaves nothing. Null is none.
 */
void openelm_piece_free(struct openelm_piece *piece);

/**
 * Why the text ended.
 */
enum openelm_status openelm_generation_finish(struct openelm_generation generation,
                                              enum openelm_finish *out);

/**
 * Ends the text at once, whatever the library is at; who waits for a piece gets OPENELM_STATUS_END. The session holds the prompt and
 * the tokens handed out.
 */
enum openelm_status openelm_generation_cancel(struct openelm_generation generation);

/**
 * Stops computing behind the next token until `openelm_generation_resume`.
 */
enum openelm_status openelm_generation_pause(struct openelm_generation generation);

/**
 * Goes on after `openelm_generation_pause`.
 */
enum openelm_status openelm_generation_resume(struct openelm_generation generation);

/**
 * Cancels what still goes on, waits for its thread to end, and closes it.
 */
enum openelm_status openelm_generation_close(struct openelm_generation generation);

/**
 * What the model at `path` and one session of it would take; nothing is loaded. `options` may be null.
 */
enum openelm_status openelm_memory_needed(const char *path,
                                          const struct openelm_load_options *options,
                                          struct openelm_footprint *out);

/**
 * Bytes that this process can still have; 0 where the system does not say.
 */
uint64_t openelm_memory_available(void);

/**
 * Reads all of the bundle at `path` and compares it with its hashes, as an app does once behind a download; opening looks at
 * everything but the hash of the weights.
 */
enum openelm_status openelm_bundle_verify(const char *path);

/**
 * Opens the model at `path`: a folder of Hugging Face, MLX or CoreNet, a bundle, or a .gguf, .pt or .safetensors file; or "builtin", where
 * a model was compiled in. Memory is asked for before anything is loaded. `options` may be null. Close it with
 * `openelm_model_close`.
 */
enum openelm_status openelm_model_open(const char *path,
                                       const struct openelm_load_options *options,
                                       struct openelm_model *out);

/**
 * Closes the model. Its sessions go on.
 */
enum openelm_status openelm_model_close(struct openelm_model model);

/**
 * What the model is.
 */
enum openelm_status openelm_model_describe(struct openelm_model model,
                                           struct openelm_description *out);

/**
 * Gives back what a description holds, and leaves nothing. Null is none.
 */
void openelm_description_free(struct openelm_description *description);

/**
 * The ids of `text`; as those of a prompt, behind the token that begins a text if the model wants one. Give them back to
 * `openelm_ids_free`.
 */
enum openelm_status openelm_tokenize(struct openelm_model model,
                                     const char *text,
                                     bool is_prompt,
                                     struct openelm_ids *out);

/**
 * The text of `count` ids; those beyond the vocabulary are passed over. Give it back to `openelm_text_free`.
 */
enum openelm_status openelm_detokenize(struct openelm_model model,
                                       const uint32_t *ids,
                                       size_t count,
                                       char **out);

/**
 * Gives back what the system may want: caches of sessions that are not generating, and packed weights. Sessions keep their
 * tokens; whatever is used again is read and computed again.
 */
enum openelm_status openelm_model_release_memory(struct openelm_model model);

/**
 * The options that a model is opened with where none are given.
 */
struct openelm_load_options openelm_load_options_default(void);

/**
 * The options that a text is written with where none are given: those of the command.
 */
struct openelm_generation_options openelm_generation_options_default(void);

/**
 * Gives back a text. Null is none.
 */
void openelm_text_free(char *text);

/**
 * Gives back ids, and leaves none. Null is none.
 */
void openelm_ids_free(struct openelm_ids *ids);

/**
 * An empty session. Close it with `openelm_session_close`.
 */
enum openelm_status openelm_session_open(struct openelm_model model, struct openelm_session *out);

/**
 * An empty session of the model as the adapter at `path` changes it: a folder of PEFT's, or a file of CoreNet's.
 */
enum openelm_status openelm_session_open_adapted(struct openelm_model model,
                                                 const char *path,
                                                 struct openelm_session *out);

/**
 * Another session that begins with the same text. What was computed of it is shared.
 */
enum openelm_status openelm_session_fork(struct openelm_session session,
                                         struct openelm_session *out);

/**
 * Closes the session. A generation of it goes on.
 */
enum openelm_status openelm_session_close(struct openelm_session session);

/**
 * The text so far. Give it back to `openelm_text_free`.
 */
enum openelm_status openelm_session_text(struct openelm_session session, char **out);

/**
 * The tokens so far. Give them back to `openelm_ids_free`.
 */
enum openelm_status openelm_session_tokens(struct openelm_session session, struct openelm_ids *out);

/**
 * Forgets all tokens from position `tokens` on.
 */
enum openelm_status openelm_session_truncate(struct openelm_session session, uint32_t tokens);

/**
 * Gives back the keys and values; they are computed again, to the same bits, when the session goes on.
 */
enum openelm_status openelm_session_drop_cache(struct openelm_session session);

/**
 * Reads `prompt` and writes on behind it, on a thread of its own. The session is busy until the text has ended or was
 * cancelled. `options` may be null. Close it with `openelm_generation_close`.
 */
enum openelm_status openelm_generate(struct openelm_session session,
                                     const char *prompt,
                                     const struct openelm_generation_options *options,
                                     struct openelm_generation *out);

/**
 * Answers the last of `count` messages, a conversation from its beginning. What the session holds of it already is not read again;
 * what it holds beyond is forgotten. Otherwise as `openelm_generate`.
 */
enum openelm_status openelm_chat(struct openelm_session session,
                                 const struct openelm_message *messages,
                                 size_t count,
                                 const struct openelm_generation_options *options,
                                 struct openelm_generation *out);

/**
 * The sentence of this thread's last call that failed; valid until the thread calls again. Empty if none did.
 */
const char *openelm_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OPENELM_H */

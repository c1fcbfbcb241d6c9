/* Tries the interface as a careless program would, then opens, generates, cancels and closes again and again:
 *
 *   checks MODEL ROUNDS
 *
 * Ends with 1 and a line on stderr at the first thing that is not as it should be. Memory must stay flat over the rounds, where
 * the system says how much there is (Linux).
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "openelm.h"

#define EXPECT(condition)                                                                      \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      fprintf(stderr, "line %d: %s; %s\n", __LINE__, #condition, openelm_last_error());        \
      exit(1);                                                                                 \
    }                                                                                          \
  } while (0)

static const char *PROMPT = "Once upon a time";

static openelm_generation_options greedy(unsigned max_tokens) {
  openelm_generation_options options = openelm_generation_options_default();
  options.temperature = 0;
  options.max_tokens = max_tokens;
  return options;
}

/* Writes on behind the prompt to `text`, and says how many tokens there were. */
static size_t write_text(openelm_session session, const char *prompt, unsigned max_tokens, char *text) {
  openelm_generation generation;
  openelm_generation_options options = greedy(max_tokens);
  EXPECT(openelm_generate(session, prompt, &options, &generation) == OPENELM_STATUS_OK);
  size_t tokens = 0;
  openelm_piece piece;
  openelm_status status;
  text[0] = 0;
  while ((status = openelm_generation_next(generation, &piece)) == OPENELM_STATUS_OK) {
    strcat(text, piece.text);
    tokens += piece.token_count;
    openelm_piece_free(&piece);
  }
  EXPECT(status == OPENELM_STATUS_END);
  EXPECT(piece.text == NULL && piece.tokens == NULL);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_OK);
  return tokens;
}

static void texts(openelm_model model) {
  char whole[8192], first[8192], rest[8192];
  openelm_session session, fork;
  EXPECT(openelm_session_open(model, &session) == OPENELM_STATUS_OK);
  EXPECT(write_text(session, PROMPT, 40, whole) == 40);
  char *text;
  EXPECT(openelm_session_text(session, &text) == OPENELM_STATUS_OK);
  EXPECT(strlen(text) == strlen(PROMPT) + strlen(whole) && strstr(text, whole));
  openelm_ids tokens, again;
  EXPECT(openelm_session_tokens(session, &tokens) == OPENELM_STATUS_OK);
  char *decoded;
  EXPECT(openelm_detokenize(model, tokens.ids, tokens.count, &decoded) == OPENELM_STATUS_OK);
  EXPECT(strcmp(decoded, text) == 0);
  EXPECT(openelm_tokenize(model, PROMPT, true, &again) == OPENELM_STATUS_OK);
  EXPECT(again.count == tokens.count - 40 && memcmp(again.ids, tokens.ids, again.count * sizeof *again.ids) == 0);

  /* A session that was cut, forked and robbed of its memory goes on to the same text. */
  EXPECT(openelm_session_truncate(session, again.count) == OPENELM_STATUS_OK);
  EXPECT(write_text(session, "", 15, first) == 15);
  EXPECT(openelm_session_fork(session, &fork) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_drop_cache(session) == OPENELM_STATUS_OK);
  EXPECT(openelm_model_release_memory(model) == OPENELM_STATUS_OK);
  EXPECT(write_text(session, "", 25, rest) == 25);
  EXPECT(strncmp(whole, first, strlen(first)) == 0 && strcmp(whole + strlen(first), rest) == 0);
  EXPECT(write_text(fork, "", 25, rest) == 25);
  EXPECT(strcmp(whole + strlen(first), rest) == 0);

  openelm_text_free(text);
  openelm_text_free(decoded);
  openelm_ids_free(&tokens);
  openelm_ids_free(&again);
  openelm_ids_free(&again);
  EXPECT(openelm_session_close(fork) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_OK);
}

static void options_and_numbers(openelm_model model) {
  openelm_description description;
  EXPECT(openelm_model_describe(model, &description) == OPENELM_STATUS_OK);
  EXPECT(description.layers > 0 && description.parameters > 0 && description.format[0] && description.ends.count > 0);
  openelm_description_free(&description);
  openelm_description_free(&description);

  openelm_session session;
  openelm_generation generation;
  openelm_generation_options options = greedy(30);
  const char *stop[] = {" the", "\xff"};
  options.stop = stop;
  options.stop_count = 1;
  options.log_probabilities = true;
  EXPECT(openelm_session_open(model, &session) == OPENELM_STATUS_OK);
  EXPECT(openelm_generate(session, PROMPT, &options, &generation) == OPENELM_STATUS_OK);
  openelm_piece piece;
  while (openelm_generation_next(generation, &piece) == OPENELM_STATUS_OK) {
    EXPECT(strstr(piece.text, " the") == NULL);
    for (size_t i = 0; i < piece.token_count; i++) EXPECT(piece.tokens[i].log_probability <= 0);
    openelm_piece_free(&piece);
  }
  openelm_finish finish;
  EXPECT(openelm_generation_finish(generation, &finish) == OPENELM_STATUS_OK && finish == OPENELM_FINISH_STOP);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_OK);

  options.stop_count = 2;
  EXPECT(openelm_generate(session, PROMPT, &options, &generation) == OPENELM_STATUS_INPUT);
  EXPECT(strstr(openelm_last_error(), "UTF-8"));
  options = greedy(1);
  options.top_p = NAN;
  EXPECT(openelm_generate(session, PROMPT, &options, &generation) == OPENELM_STATUS_INPUT);
  EXPECT(strstr(openelm_last_error(), "top-p"));
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_OK);
}

static void mistakes(const char *path, openelm_model model) {
  openelm_model other;
  openelm_load_options options = openelm_load_options_default();
  EXPECT(openelm_model_open("no/such/model", NULL, &other) == OPENELM_STATUS_FILE);
  EXPECT(strstr(openelm_last_error(), "no/such/model"));
  EXPECT(openelm_model_open(NULL, NULL, &other) == OPENELM_STATUS_INPUT);
  EXPECT(openelm_model_open(path, NULL, NULL) == OPENELM_STATUS_INPUT);
  options.memory = 1;
  EXPECT(openelm_model_open(path, &options, &other) == OPENELM_STATUS_MEMORY);
  options.memory = 0;
  options.cache = 77;
  EXPECT(openelm_model_open(path, &options, &other) == OPENELM_STATUS_INPUT);

  openelm_session session, none = {0};
  openelm_generation generation;
  openelm_piece piece;
  openelm_generation_options long_text = greedy(200);
  char *text;
  EXPECT(openelm_session_open(model, &session) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_open_adapted(model, "no/adapter", &none) == OPENELM_STATUS_FILE);
  EXPECT(openelm_session_text(none, &text) == OPENELM_STATUS_CLOSED);
  EXPECT(openelm_generate(session, PROMPT, &long_text, &generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_text(session, &text) == OPENELM_STATUS_BUSY);
  EXPECT(openelm_generation_cancel(generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_generation_next(generation, &piece) == OPENELM_STATUS_END);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_generation_next(generation, &piece) == OPENELM_STATUS_CLOSED);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_CLOSED);
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_CLOSED);
  EXPECT(strstr(openelm_last_error(), "closed"));
  EXPECT(openelm_generate(session, PROMPT, NULL, &generation) == OPENELM_STATUS_CLOSED);
}

static void *read_pieces(void *generation) {
  size_t tokens = 0;
  openelm_piece piece;
  while (openelm_generation_next(*(openelm_generation *)generation, &piece) == OPENELM_STATUS_OK) {
    tokens += piece.token_count;
    openelm_piece_free(&piece);
  }
  return (void *)tokens;
}

/* Several threads may read one text: each piece goes to one of them. */
static void threads(openelm_model model) {
  openelm_session session;
  openelm_generation generation;
  openelm_generation_options options = greedy(60);
  EXPECT(openelm_session_open(model, &session) == OPENELM_STATUS_OK);
  EXPECT(openelm_generate(session, PROMPT, &options, &generation) == OPENELM_STATUS_OK);
  pthread_t readers[3];
  size_t sum = 0;
  for (int i = 0; i < 3; i++) EXPECT(pthread_create(&readers[i], NULL, read_pieces, &generation) == 0);
  for (int i = 0; i < 3; i++) {
    void *tokens;
    EXPECT(pthread_join(readers[i], &tokens) == 0);
    sum += (size_t)tokens;
  }
  EXPECT(sum == 60);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_OK);
}

static void round_trip(const char *path) {
  openelm_model model;
  openelm_session session;
  openelm_generation generation;
  openelm_piece piece;
  openelm_generation_options options = greedy(100);
  EXPECT(openelm_model_open(path, NULL, &model) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_open(model, &session) == OPENELM_STATUS_OK);
  EXPECT(openelm_generate(session, PROMPT, &options, &generation) == OPENELM_STATUS_OK);
  for (int i = 0; i < 3; i++) {
    EXPECT(openelm_generation_next(generation, &piece) == OPENELM_STATUS_OK);
    openelm_piece_free(&piece);
  }
  EXPECT(openelm_generation_cancel(generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_generation_close(generation) == OPENELM_STATUS_OK);
  EXPECT(openelm_session_close(session) == OPENELM_STATUS_OK);
  EXPECT(openelm_model_close(model) == OPENELM_STATUS_OK);
}

/* Memory of this process that is in use, in KiB; 0 where the system does not say. */
static long resident(void) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long kibibytes = 0;
  while (file && fgets(line, sizeof line, file)) sscanf(line, "RssAnon: %ld", &kibibytes);
  if (file) fclose(file);
  return kibibytes;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const char *path = arguments[1];
  int rounds = atoi(arguments[2]);
  openelm_model model;
  EXPECT(openelm_api_version() == OPENELM_API_VERSION);
  EXPECT(openelm_model_open(path, NULL, &model) == OPENELM_STATUS_OK);
  texts(model);
  options_and_numbers(model);
  mistakes(path, model);
  threads(model);
  EXPECT(openelm_model_close(model) == OPENELM_STATUS_OK);
  EXPECT(openelm_model_close(model) == OPENELM_STATUS_CLOSED);

  long after_a_tenth = 0;
  for (int i = 0; i < rounds; i++) {
    round_trip(path);
    if (i == rounds / 10) after_a_tenth = resident();
  }
  long at_the_end = resident();
  printf("%d rounds: %ld KiB after a tenth of them, %ld KiB at the end\n", rounds, after_a_tenth, at_the_end);
  /* Pages that the allocator keeps come and go; a leak of a kilobyte a round would be seen. */
  EXPECT(rounds < 1000 || at_the_end - after_a_tenth < rounds);
  return 0;
}

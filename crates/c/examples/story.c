/* Writes on behind a prompt, piece by piece, and stops at Ctrl-C:
 *
 *   story [MODEL [PROMPT]]
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "openelm.h"

static volatile sig_atomic_t interrupted;

static void interrupt(int signal) {
  (void)signal;
  interrupted = 1;
}

static void check(openelm_status status) {
  if (status == OPENELM_STATUS_OK) return;
  fprintf(stderr, "story: %s\n", openelm_last_error());
  exit(1);
}

int main(int count, char **arguments) {
  const char *path = count > 1 ? arguments[1] : "builtin";
  const char *prompt = count > 2 ? arguments[2] : "Once upon a time";
  if (openelm_api_version() != OPENELM_API_VERSION) {
    fprintf(stderr, "story: compiled for another openelm than %s\n", openelm_version());
    return 1;
  }
  signal(SIGINT, interrupt);

  openelm_footprint needed;
  check(openelm_memory_needed(path, NULL, &needed));
  fprintf(stderr, "%" PRIu64 " MiB of memory needed\n", needed.total >> 20);

  openelm_model model;
  openelm_session session;
  openelm_generation generation;
  openelm_generation_options options = openelm_generation_options_default();
  options.max_tokens = 60;
  options.temperature = 0;
  check(openelm_model_open(path, NULL, &model));
  check(openelm_session_open(model, &session));
  check(openelm_generate(session, prompt, &options, &generation));
  fputs(prompt, stdout);
  for (;;) {
    openelm_piece piece;
    openelm_status status = openelm_generation_next(generation, &piece);
    if (status == OPENELM_STATUS_END) break;
    check(status);
    fputs(piece.text, stdout);
    fflush(stdout);
    openelm_piece_free(&piece);
    if (interrupted) check(openelm_generation_cancel(generation));
  }
  puts("");
  check(openelm_generation_close(generation));
  check(openelm_session_close(session));
  check(openelm_model_close(model));
  return 0;
}

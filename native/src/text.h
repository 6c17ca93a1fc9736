/* SPDX-License-Identifier: Apache-2.0 */
/* Small bounded text helpers. Own number parsers because glibc >= 2.38 binds strtol and sscanf to
 * symbols that older hosts lack. */
#ifndef MP_TEXT_H
#define MP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whole string is a decimal number <= max; no sign, no blanks, at least one digit. */
bool mp_parse_u64(const char *text, uint64_t max, uint64_t *ret_value);
/* Decimal digits at *cursor; moves it behind them. */
bool mp_take_u64(const char **cursor, uint64_t max, uint64_t *ret_value);
/* Copies with truncation, always terminates; returns false if it did not fit. */
bool mp_copy(char *destination, size_t size, const char *source);
/* The bytes of a hostile string, made harmless and short for an error text. Returns `buffer`. */
const char *mp_printable(const char *text, char *buffer, size_t size);
/* Reads a small file whole, strips trailing newlines and blanks. Returns length or a negative
 * errno. */
int mp_read_file(const char *path, char *buffer, size_t size);
uint64_t mp_now_ns(void); /* CLOCK_MONOTONIC */

#endif

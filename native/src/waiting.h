/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting in a worker for what the kernel announces to nobody: a device that is no longer busy, a table
 * that was swapped, a file lock that is free, an entry of udev's database. */
#ifndef MP_WAITING_H
#define MP_WAITING_H

#include <stdbool.h>
#include <stdint.h>

/* Waits 20 ms, after which the caller looks again; false, at once, when `until_ns` (CLOCK_MONOTONIC) has
 * passed. */
bool mp_wait_turn(uint64_t until_ns);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "waiting.h"

#include "text.h"

#include <poll.h>
#include <stddef.h>

enum { TURN_MS = 20 };

bool mp_wait_turn(uint64_t until_ns)
{
    if (mp_now_ns() >= until_ns)
        return false;
    poll(NULL, 0, TURN_MS);
    return true;
}

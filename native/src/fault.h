/* SPDX-License-Identifier: Apache-2.0 */
/* Points at which a test kills or stops the process. Nothing of this is in a normal build. */
#ifndef MP_FAULT_H
#define MP_FAULT_H

#ifdef MANYPATH_FAULTS

/* The environment says what happens at this passing of the point:
 *
 *   MANYPATH_FAULT=attach.logged_in:2=kill    the process kills itself at the second passing;
 *   MANYPATH_FAULT=attach.logged_in:2=stop    it stops itself, until it is continued;
 *   MANYPATH_FAULT_LOG=FILE                   every passing is appended, "attach.logged_in:2\n". */
void mp_fault(const char *point);

#define MP_FAULT(point) mp_fault(point)

#else

#define MP_FAULT(point) ((void)0)

#endif
#endif

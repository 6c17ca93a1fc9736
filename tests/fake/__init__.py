# SPDX-License-Identifier: Apache-2.0
"""Scripted daemons for tests."""

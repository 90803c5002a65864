"""
The fleet's leases: who fetches the answer of a key, so that a thousand processes ask for it once.

The rule: every step is one script on the keys of one slot. Each change carries the token that the lease was taken with;
so a process that has lost its lease, for whatever reason, changes nothing.

A lease is a string with a time to live: the token of its holder, and after it one ``+`` for every process that waits.
News is published only if somebody waits. ``-`` alone is the mark that a fetch ended without an answer to share.

While the holder's own call shows no sign of life, a ``?`` stands among the ``+``. Then one more process may fetch: the
one that takes the second lease, which has the same form. There is never a third. Older releases count the ``?`` as one
more waiting process.
"""

from __future__ import annotations

from typing import Any

from sidecar.redis_link.link import Script
from sidecar.redis_link.shapes import misshapen, one_of

_LONGEST_LEASE = 60_000
"""Milliseconds. The script has the same number."""


def _look_reply(reply: Any) -> tuple[str, float, bytes | None]:
    """Read the answer of ``LOOK``: what was found, seconds, and the value if there is one."""
    match reply:
        case [b"value", int(left), bytes(value)] if left >= 0:
            return "value", left / 1000, value
        case [(b"taken" | b"second") as what, bytes()]:
            return what.decode(), 0.0, None
        case [(b"held" | b"none") as what, int(left)] if 0 <= left <= _LONGEST_LEASE:
            return what.decode(), left / 1000, None
        case _:
            raise misshapen()


LOOK = Script(
    """
-- KEYS: entry, lease, second lease. ARGV: a new token, its milliseconds, the end of a value that is of no use, 1 where
-- we start to wait, the size of our largest possible value in bytes, and when we take the second lease: 1 now, ? if the
-- holder of the first is stuck; 0 means that we take no lease at all.
local tail = redis.pcall('GETRANGE', KEYS[1], -32, -1)
if type(tail) ~= 'string' and not string.find(tail.err, 'WRONGTYPE', 1, true) then return tail end  -- no right to read
local life = redis.call('PTTL', KEYS[1])
if life == -1 or type(tail) ~= 'string' then
  redis.call('DEL', KEYS[1])  -- not written by us, and would stay for ever
elseif tail ~= '' and tail ~= ARGV[3] and redis.call('STRLEN', KEYS[1]) <= tonumber(ARGV[5]) then
  return {'value', life, redis.call('GET', KEYS[1])}
end
local held = redis.pcall('GET', KEYS[2])
local left = redis.call('PTTL', KEYS[2])
if type(held) ~= 'string' or left < 0 or left > 60000 then
  if ARGV[6] == '0' then return {'none', 0} end
  local taken = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  if taken.err then return {'none', 0} end  -- no memory left, or no right to write
  return {'taken', ARGV[2]}
end
if held == '-' then return {'none', left} end
if ARGV[6] == '1' or (ARGV[6] == '?' and string.find(held, '?', #ARGV[1] + 1, true)) then
  local taken = redis.pcall('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2])
  if taken and taken.ok then return {'second', ARGV[2]} end
end
if ARGV[4] ~= '' and (ARGV[4] == '1' or #held == #ARGV[1]) and #held < 4096 then
  redis.pcall('APPEND', KEYS[2], '+')
end
return {'held', left}
""",
    "look",
    _look_reply,
)

_OURS = """
local held = redis.pcall('GET', KEYS[1])
if type(held) ~= 'string' or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
local waiting = #held - #ARGV[1]
"""

RENEW = Script(
    _OURS
    + """
-- KEYS: lease. ARGV: token, milliseconds.
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
    "renew",
    one_of(0, 1),
)

STALL = Script(
    _OURS
    + """
-- KEYS: lease. ARGV: token, 1 where its holder's call is stuck, 0 where it goes on after all, channel, news.
local marked = string.find(held, '?', #ARGV[1] + 1, true)
if ARGV[2] == '1' and not marked then
  if type(redis.pcall('APPEND', KEYS[1], '?')) == 'number' and waiting > 0 then
    redis.pcall('PUBLISH', ARGV[3], ARGV[4] .. ':' .. waiting)
  end
elseif ARGV[2] == '0' and marked then
  local left = redis.call('PTTL', KEYS[1])
  held = string.sub(held, 1, marked - 1) .. string.sub(held, marked + 1)
  if left > 0 then redis.pcall('SET', KEYS[1], held, 'PX', left) end
end
return 1
""",
    "stall",
    one_of(0, 1),
)

KEEP = Script(
    _OURS
    + """
-- KEYS: lease, entry, first lease. ARGV: token, value, its milliseconds, channel, news.
local first = redis.pcall('GET', KEYS[3])
if type(first) == 'string' then waiting = math.max(waiting, #first - #ARGV[1]) end
local kept = redis.pcall('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
if waiting > 0 then redis.pcall('PUBLISH', ARGV[4], ARGV[5] .. ':' .. waiting) end
if kept.err then return -1 end  -- no memory left
return 1
""",
    "keep",
    one_of(-1, 0, 1),
)

GIVE_BACK = Script(
    _OURS
    + """
-- KEYS: lease. ARGV: token, milliseconds of the mark or 0 for none, channel, news.
if ARGV[2] == '0' or redis.pcall('SET', KEYS[1], '-', 'PX', ARGV[2]).err then redis.call('DEL', KEYS[1]) end
if waiting > 0 then redis.pcall('PUBLISH', ARGV[3], ARGV[4] .. ':' .. waiting) end
return 1
""",
    "release",
    one_of(0, 1),
)

"""The protocol without I/O: bytes in, values out; intents in, bytes out. No asyncio, no clock.

`framing` cuts lines, `rpc` knows messages and ids, `turn` follows one turn to its outcome, `types`
and `deltas` are the generated structs of the pinned schema.
"""

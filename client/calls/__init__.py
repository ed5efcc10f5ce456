"""The calls of one model, as coroutines that the blocking and the asyncio client share."""

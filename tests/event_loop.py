"""Run tests that are coroutines."""

import asyncio
import functools

# Of a whole test: below that of pytest, whose end says less.
PATIENCE_S = 100


def in_event_loop(test):
    """Make a test of a coroutine function, which runs in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments, **named):
        async def bounded():
            async with asyncio.timeout(PATIENCE_S):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run


async def eventually(condition, what):
    """Wait until a condition, which may be a coroutine function, holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            await asyncio.sleep(0.005)

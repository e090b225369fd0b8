"""Work that threads do before it is needed, in order."""

import collections
import concurrent.futures


def each(function, given, threads, held):
    """Yields function(one) for each one given, in order. Threads work ahead, and at most `held` results wait."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque()
        try:
            for one in given:
                waiting.append(pool.submit(function, one))
                if len(waiting) > held:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

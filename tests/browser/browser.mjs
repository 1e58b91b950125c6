// What the scripts share: a browser by its name, used within a deadline, and what is done to a page in any of them.
//
// Each driver (chromium.mjs, firefox.mjs) exports launch(size), which returns { newPage(), close() }. Of their pages
// only what both have is used: goto, evaluate with one argument, click, screenshot, close, isClosed, on.

/** How often a page is asked whether something has come true. */
const POLL = 50;

export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * Runs `use(open)`, where `open(browser, url)` opens a page in a browser by its name, which is started when it is first
 * asked for. All browsers are closed whatever happens, after no longer than `deadline` ms. When it fails, each page
 * leaves a picture of itself beside `screenshot`.
 */
export async function withBrowsers({ deadline, screenshot = '', size = { width: 1280, height: 800 } }, use) {
  const browsers = new Map();
  const pages = [];
  const open = async (name, url) => {
    if (!browsers.has(name)) {
      const { launch } = await import(`./${name}.mjs`);
      browsers.set(name, await launch(size));
    }
    const page = await browsers.get(name).newPage();
    pages.push(page);
    page.on('console', (message) => console.error(`[${name}] ${message.text()}`));
    page.on('pageerror', (error) => console.error(`[${name}] ${error}`));
    await page.goto(url);
    return page;
  };
  const close = () => Promise.all([...browsers.values()].map((browser) => browser.close().catch(() => {})));
  const pictures = async () => {
    for (const [n, page] of pages.filter((one) => !one.isClosed()).entries()) {
      const path = screenshot.replace(/(\.png)?$/, `-failed-${n + 1}.png`);
      if (screenshot) await Promise.race([page.screenshot({ path }).catch(() => {}), pause(5000)]);
    }
  };
  const timer = setTimeout(async () => {
    console.error(`deadline of ${deadline} ms passed`);
    await pictures();
    await close();
    process.exit(2);
  }, deadline);
  try {
    return await use(open);
  } catch (error) {
    await pictures();
    throw error;
  } finally {
    clearTimeout(timer);
    await close();
  }
}

/** Waits until `ask` says something true in the page, and returns what it said. */
export async function until(page, what, ask, argument = null, patience = 60000) {
  const end = Date.now() + patience;
  for (;;) {
    const answer = await page.evaluate(ask, argument);
    if (answer) return answer;
    if (Date.now() > end) {
      const state = await page.evaluate(() => document.getElementById('state')?.textContent);
      throw new Error(`waited ${patience} ms in vain for ${what}; the page says: ${state}`);
    }
    await pause(POLL);
  }
}

/** Waits until a player shows pictures. */
export function picture(page) {
  return until(page, 'a picture', () => document.getElementById('video').videoWidth > 0);
}

/** Chooses in a menu as a hand would, and returns when that was on the page's clock. */
export function choose(page, id, value) {
  return page.evaluate(([menu, wanted]) => {
    const select = document.getElementById(menu);
    if (![...select.options].some((option) => option.value === wanted)) throw new Error(`${menu} has no ${wanted}`);
    select.value = wanted;
    select.dispatchEvent(new Event('change', { bubbles: true }));
    return performance.now();
  }, [id, value]);
}

/** `--name value` arguments; every one has a default, which tells its type. */
export function options(defaults) {
  const result = { ...defaults };
  const args = process.argv.slice(2);
  while (args.length > 0) {
    const name = args.shift().replace(/^--/, '');
    if (!(name in defaults)) throw new Error(`unknown option ${name}; there are ${Object.keys(defaults)}`);
    const value = args.shift();
    result[name] = typeof defaults[name] === 'number' ? Number(value) : value;
  }
  return result;
}

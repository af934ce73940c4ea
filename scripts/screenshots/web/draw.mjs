/**
 * Draws dashboards as pictures: node draw.mjs JOBS.json
 *
 * JOBS: { chromium: path, sandbox: bool, scale: number, pictures: [{ data: path, picture: path }] }. Each of `data` is
 * what scripts/screenshots/_dashboard.py has resolved.
 */
import { readFileSync } from 'node:fs';

import puppeteer from 'puppeteer-core';
import { preview } from 'vite';

const PATIENCE = 60_000; // milliseconds for one picture

const jobs = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const server = await preview({ preview: { host: '127.0.0.1', port: 0, open: false } });
const url = `http://127.0.0.1:${server.httpServer.address().port}/`;
const browser = await puppeteer.launch({
  executablePath: jobs.chromium,
  args: ['--disable-gpu', '--hide-scrollbars', '--font-render-hinting=none', ...(jobs.sandbox ? [] : ['--no-sandbox'])],
});
let failed = false;
try {
  for (const { data, picture } of jobs.pictures) {
    const dashboard = JSON.parse(readFileSync(data, 'utf8'));
    const errors = await draw(dashboard, picture);
    for (const error of errors) {
      console.error(`${picture}: ${error}`);
      failed = true;
    }
  }
} finally {
  await browser.close();
  await server.close();
}
process.exitCode = failed ? 1 : 0;

/** Takes one picture, and returns what went wrong in the page. */
async function draw(dashboard, picture) {
  const errors = [];
  const page = await browser.newPage();
  page.on('pageerror', (error) => errors.push(String(error?.stack ?? error)));
  page.on('response', (response) => {
    if (response.status() >= 400) {
      errors.push(`${response.status()} ${response.url()}`);
    }
  });
  const { width, height } = dashboard;
  await page.setViewport({ width, height, deviceScaleFactor: jobs.scale });
  await page.evaluateOnNewDocument((given) => {
    window.dashboard = given;
  }, dashboard);
  await page.goto(url, { waitUntil: 'networkidle0', timeout: PATIENCE });
  await page.waitForFunction(() => window.drawn !== undefined, { timeout: PATIENCE });
  const drawn = await page.evaluate(() => window.drawn);
  errors.push(...drawn.errors);
  for (const note of drawn.cut) {
    console.log(`${picture}: ${note}`);
  }
  await page.screenshot({ path: picture });
  await page.close();
  return errors;
}

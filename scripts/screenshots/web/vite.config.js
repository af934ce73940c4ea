import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import react from '@vitejs/plugin-react';

const modules = fileURLToPath(new URL('node_modules', import.meta.url));
const FONTS = { 'Inter-Regular': 400, 'Inter-Medium': 500 };

/** Puts Grafana's icons and its font where its components ask a Grafana server for them. */
function assets() {
  return {
    name: 'assets',
    writeBundle({ dir }) {
      const icons = join(modules, '@grafana/ui/dist/public/img/icons');
      cpSync(icons, join(dir, 'public/build/img/icons'), { recursive: true });
      mkdirSync(join(dir, 'public/fonts/inter'), { recursive: true });
      for (const [name, weight] of Object.entries(FONTS)) {
        const font = join(modules, `@fontsource/inter/files/inter-latin-${weight}-normal.woff2`);
        cpSync(font, join(dir, 'public/fonts/inter', `${name}.woff2`));
      }
    },
  };
}

export default {
  plugins: [react(), assets()],
  // Some of what Grafana depends on is made for Node.
  define: { 'process.env': {}, global: 'globalThis' },
  build: { minify: false, sourcemap: false, chunkSizeWarningLimit: 100_000, reportCompressedSize: false },
};

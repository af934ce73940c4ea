/** One dashboard, drawn by Grafana's own components over data that is there already. */
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import { css } from '@emotion/css';

import { createTheme, dateTime } from '@grafana/data';
import { GlobalStyles, Icon, PanelChrome, PortalContainer, ThemeContext, useStyles2 } from '@grafana/ui';

import 'uplot/dist/uPlot.min.css';

import { framesOf } from './fields.js';
import { Header } from './Header.jsx';
import { PANELS } from './panels.jsx';

const TIME_ZONE = 'utc';
const { dashboard } = window;
const theme = createTheme({ colors: { mode: 'dark' } });
const timeRange = { from: dateTime(dashboard.from), to: dateTime(dashboard.to) };
timeRange.raw = { from: timeRange.from, to: timeRange.to };
const errors = [];

/** What a reader of the picture could not read. */
function cut() {
  const found = [];
  for (const section of document.querySelectorAll('section[aria-labelledby]')) {
    const heading = section.querySelector('h2');
    if (heading.scrollWidth > heading.clientWidth) {
      found.push(`${heading.textContent}: the title does not fit`);
    }
    for (const part of section.querySelectorAll('[data-testid*="legend"] *')) {
      if (part.scrollHeight > part.clientHeight + 2 && getComputedStyle(part).overflowY !== 'visible') {
        found.push(`${heading.textContent}: the legend does not fit`);
        break;
      }
    }
  }
  return found;
}

const stylesOf = (theme) => ({
  row: css({
    alignItems: 'center',
    display: 'flex',
    fontSize: theme.typography.h5.fontSize,
    fontWeight: theme.typography.fontWeightMedium,
    gap: theme.spacing(1),
    height: '100%',
  }),
  empty: css({
    alignItems: 'center',
    color: theme.colors.text.secondary,
    display: 'flex',
    height: '100%',
    justifyContent: 'center',
  }),
});

/** Says what is wrong with one panel, and to whoever takes the picture. */
class Boundary extends Component {
  state = {};

  static getDerivedStateFromError(error) {
    return { error };
  }

  componentDidCatch(error) {
    errors.push(`${this.props.title}: ${error.stack ?? error}`);
  }

  render() {
    return this.state.error ? <pre>{String(this.state.error)}</pre> : this.props.children;
  }
}

function Row({ panel }) {
  const styles = useStyles2(stylesOf);
  return (
    <div className={styles.row}>
      <Icon name="angle-down" />
      {panel.title}
    </div>
  );
}

function Body({ panel, width, height }) {
  const styles = useStyles2(stylesOf);
  const Draw = PANELS[panel.type];
  if (Draw === undefined) {
    throw new Error(`panels of type ${panel.type} are not drawn`);
  }
  const frames = framesOf(panel, theme, TIME_ZONE);
  if (frames.length === 0) {
    return <div className={styles.empty}>No data</div>;
  }
  const props = { panel, frames, width, height, theme, timeRange, timeZone: TIME_ZONE };
  return <Draw {...props} />;
}

function links(panel) {
  const count = panel.links?.length ?? 0;
  return count === 0 ? undefined : (
    <PanelChrome.TitleItem title="Links">
      <Icon name={count === 1 ? 'external-link-alt' : 'link'} size="md" />
    </PanelChrome.TitleItem>
  );
}

function Panel({ panel }) {
  const { x, y, width, height } = panel.box;
  return (
    <div style={{ position: 'absolute', left: x, top: y, width, height }}>
      {panel.type === 'row' ? (
        <Row panel={panel} />
      ) : (
        <PanelChrome title={panel.title} description={panel.description} titleItems={links(panel)} width={width} height={height}>
          {(innerWidth, innerHeight) => (
            <Boundary title={panel.title}>
              <Body panel={panel} width={innerWidth} height={innerHeight} />
            </Boundary>
          )}
        </PanelChrome>
      )}
    </div>
  );
}

function Page() {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PortalContainer />
      <Header dashboard={dashboard} timeRange={timeRange} timeZone={TIME_ZONE} />
      {dashboard.panels.map((panel) => (
        <Panel key={panel.id} panel={panel} />
      ))}
    </ThemeContext.Provider>
  );
}

/** Waits until nothing is measured, loaded or drawn any more. */
async function settled() {
  await document.fonts.ready;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}

createRoot(document.getElementById('root')).render(<Page />);
settled().then(() => {
  window.drawn = { errors, cut: cut() };
});

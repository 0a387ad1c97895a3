import { Writable } from 'node:stream';
/** A stream that keeps what is written to it; a terminal only as far as it says so. */
export class Captured extends Writable {
    isTTY;
    text = '';
    constructor(isTTY = false) {
        super();
        this.isTTY = isTTY;
    }
    _write(chunk, _encoding, done) {
        this.text += chunk.toString();
        done();
    }
    get asStream() {
        return this;
    }
}
